/* How devices hand out arrays: from an arena, whose dry run counts the same calls. */
#ifndef HEARTH_DEVICE_LAY_H
#define HEARTH_DEVICE_LAY_H

#include "base/arena.h"
#include "device/device.h"
#include "kernels/kernels.h"
#include "kernels/rows.h"
#include "model/model.h"

/* Where weights are laid, and for whom. */
struct laying {
    struct arena *arena;
    const struct device_options *o;
    int64_t unit; /* model_neuron_unit */
    bool apart;   /* not in the host's memory */
    bool changes; /* rows and columns may become matrices: they have the room (device/cpu/relayout.h) */
};

static inline float *lay_floats(struct arena *a, int64_t n) { return arena_alloc(a, (size_t)n * sizeof(float)); }

static inline int32_t *lay_integers(struct arena *a, int64_t n) { return arena_alloc(a, (size_t)n * sizeof(int32_t)); }

static inline uint32_t *lay_words(struct arena *a, int64_t n) { return arena_alloc(a, (size_t)n * sizeof(uint32_t)); }

/* A packed matrix of the type of m. */
static inline void lay_matrix(struct arena *a, struct packed *p, const struct matrix *m, int64_t rows, int64_t cols)
{
    packed_shape(p, m->type, rows, cols);
    p->data = arena_alloc(a, packed_bytes(p));
}

/* n rows of the type of m, each by itself. */
static inline void lay_rows(struct arena *a, struct neuron_rows *r, const struct matrix *m, int64_t n, bool planes)
{
    neuron_rows_shape(r, m->type, n, m->cols, planes);
    r->top = arena_alloc(a, (size_t)n * r->top_bytes);
    r->rest = arena_alloc(a, (size_t)n * r->rest_bytes);
}

/* n values of a vector. NULL: the model has none. */
static inline float *lay_part(struct arena *a, const struct matrix *m, int64_t n)
{
    return m->data ? lay_floats(a, n) : NULL;
}

static inline float *lay_vector(struct arena *a, const struct matrix *m) { return lay_part(a, m, m->cols); }

static inline void lay_acts(struct arena *a, struct acts *x, int64_t n, int64_t cols)
{
    *x = (struct acts){.cols = cols, .f32 = lay_floats(a, n * cols)};
    x->codes = arena_alloc(a, (size_t)(n * cols));
    x->blocks = arena_alloc(a, (size_t)(n * cols / ACT_BLOCK) * sizeof *x->blocks);
}

#endif
