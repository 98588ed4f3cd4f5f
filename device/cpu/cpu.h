/* What the files of this folder share: what the CPU computes with. Each object has a header of its own. d_model is
 * written d, tokens of a step n. */
#ifndef HEARTH_DEVICE_CPU_CPU_H
#define HEARTH_DEVICE_CPU_CPU_H

#include "base/arena.h"
#include "base/threads.h"
#include "device/device.h"
#include "device/lay.h"
#include "kernels/kernels.h"
#include "model/model.h"

struct cpu {
    struct device_options o;
    const struct hparams *hp;    /* o.model's */
    struct arena arena;          /* dry: the same code counts what it would hand out */
    struct device_counts counts; /* since they were asked for */
};

static inline struct laying cpu_laying(struct cpu *c)
{
    return (struct laying){.arena = &c->arena, .o = &c->o, .unit = model_neuron_unit(c->o.model), .changes = true};
}

/* ---- computing ---- */

/* Of so few tokens what is computed is small beside what is read: then long runs are best, for a run takes more than a
 * microsecond until memory feeds it fast. */
enum { FEW_TOKENS = 16 };

/* How many groups a thread takes at a time for n tokens: few enough to share evenly, and to stay in cache where many
 * tokens read them. */
static inline int64_t group_grain(const struct cpu *c, int64_t groups, int64_t n)
{
    enum { PIECES_PER_THREAD = 4, MOST_GROUPS = 16, MOST_OF_FEW = 128 };
    const int64_t most = n <= FEW_TOKENS ? MOST_OF_FEW : MOST_GROUPS;
    const int64_t grain = groups / (c->o.n_threads * PIECES_PER_THREAD);
    return grain < 1 ? 1 : grain > most ? most : grain;
}

static inline void multiply(float *x, int64_t n, float by)
{
    for (int64_t i = 0; i < n; i++)
        x[i] *= by;
}

/* acts of tokens [t, t + 1), columns [begin, begin + cols). */
static inline struct acts acts_slice(const struct acts *a, int64_t t, int64_t begin, int64_t cols)
{
    return (struct acts){.cols = cols,
                         .f32 = a->f32 + t * a->cols + begin,
                         .codes = a->codes + t * a->cols + begin,
                         .blocks = a->blocks + (t * a->cols + begin) / ACT_BLOCK};
}

#endif
