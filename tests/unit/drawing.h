/* A sampler with all that it needs, for tests. */
#ifndef HEARTH_TESTS_UNIT_DRAWING_H
#define HEARTH_TESTS_UNIT_DRAWING_H

#include <stdlib.h>
#include "base/arena.h"
#include "sampling/sampler.h"

enum { MOST_TEXT = 1000 };

/* Parameters in the order temperature, top-k, top-p, min-p, seed; penalty and its window. */
#define P(temperature, top_k, top_p, min_p, seed) \
    (&(struct sampler_params){temperature, top_k, top_p, min_p, 1, 0, 0, 0, seed})
#define PENALTY(penalty, last) (&(struct sampler_params){0, 0, 1, 0, penalty, 0, 0, last, 0})

struct drawing {
    struct arena memory;
    struct sampler s;
    struct sampler_scratch scratch;
};

static inline void lay(struct drawing *d, int32_t n_vocab)
{
    sampler_lay(&d->s, MOST_TEXT, &d->memory);
    sampler_lay_scratch(&d->scratch, n_vocab, &d->memory);
}

static inline struct drawing *make(int32_t n_vocab, const struct sampler_params *p)
{
    struct drawing *d = malloc(sizeof *d);
    assert_non_null(d);
    arena_dry(&d->memory);
    lay(d, n_vocab);
    assert_int_equal(arena_map(&d->memory, d->memory.used), ST_OK);
    lay(d, n_vocab);
    d->s.params = *p;
    return d;
}

static inline void drop(struct drawing *d)
{
    arena_unmap(&d->memory);
    free(d);
}

static inline int32_t pick(struct drawing *d, const float *logits) { return sampler_pick(&d->s, &d->scratch, logits); }

/* As the token of a position whose text does not matter. */
static inline int32_t pick_at(struct drawing *d, uint32_t position, const float *logits)
{
    sampler_begin(&d->s, position);
    return pick(d, logits);
}

static inline void append(struct drawing *d, int32_t token) { sampler_accept(&d->s, token); }

/* Probabilities 0.5, 0.25, 0.15, 0.1 in mixed order. */
static const float quarters[] = {-1.3862944f, -2.3025851f, -0.6931472f, -1.8971200f};

#endif
