/* What the files of this folder share: what the CPU computes with, and how arrays are handed out. Each object has a
 * header of its own. d_model is written d, tokens of a step n. */
#ifndef HEARTH_DEVICE_CPU_CPU_H
#define HEARTH_DEVICE_CPU_CPU_H

#include "base/arena.h"
#include "base/threads.h"
#include "device/device.h"
#include "kernels/kernels.h"
#include "model/model.h"

struct cpu {
    struct device_options o;
    const struct hparams *hp;    /* o.model's */
    struct arena arena;          /* dry: the same code counts what it would hand out */
    struct device_counts counts; /* since they were asked for */
};

/* ---- arrays, from the arena ---- */

static inline float *lay_floats(struct cpu *c, int64_t n)
{
    return arena_alloc(&c->arena, (size_t)n * sizeof(float));
}

static inline int32_t *lay_integers(struct cpu *c, int64_t n)
{
    return arena_alloc(&c->arena, (size_t)n * sizeof(int32_t));
}

/* A packed matrix of the type of m. */
static inline void lay_matrix(struct cpu *c, struct packed *p, const struct matrix *m, int64_t rows, int64_t cols)
{
    packed_shape(p, m->type, rows, cols);
    p->data = arena_alloc(&c->arena, packed_bytes(p));
}

/* NULL: the model has none. */
static inline float *lay_vector(struct cpu *c, const struct matrix *m)
{
    return m->data ? lay_floats(c, m->cols) : NULL;
}

static inline void lay_acts(struct cpu *c, struct acts *a, int64_t n, int64_t cols)
{
    *a = (struct acts){.cols = cols, .f32 = lay_floats(c, n * cols)};
    a->codes = arena_alloc(&c->arena, (size_t)(n * cols));
    a->blocks = arena_alloc(&c->arena, (size_t)(n * cols / ACT_BLOCK) * sizeof *a->blocks);
}

/* ---- computing ---- */

/* How many of n groups a thread takes at a time: small enough to share evenly, large enough to stay in cache. */
static inline int64_t group_grain(const struct cpu *c, int64_t groups)
{
    enum { PIECES_PER_THREAD = 4, MOST_GROUPS = 16 };
    int64_t grain = groups / (c->o.n_threads * PIECES_PER_THREAD);
    return grain < 1 ? 1 : grain > MOST_GROUPS ? MOST_GROUPS : grain;
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
