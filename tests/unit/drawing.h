/* A sampler with all that it needs, for tests. */
#ifndef HEARTH_TESTS_UNIT_DRAWING_H
#define HEARTH_TESTS_UNIT_DRAWING_H

#include <stdlib.h>
#include "base/arena.h"
#include "sampling/sampler.h"

enum { MOST_TEXT = 1000, MOST_OPS = 100 };

/* Parameters in the order temperature, top-k, top-p, min-p, seed; penalty and its window. */
#define P(t, k, p, m, s) \
    (&(struct sampler_params){.temperature = t, .top_k = k, .top_p = p, .min_p = m, .repeat_penalty = 1, .seed = s})
#define PENALTY(penalty, last) \
    (&(struct sampler_params){.top_p = 1, .repeat_penalty = penalty, .repeat_last = last})

struct drawing {
    struct arena memory;
    struct sampler s;
    struct sampler_scratch scratch;
    const struct token_trie *trie; /* NULL: no grammars */
};

static inline void lay(struct drawing *d, int32_t n_vocab)
{
    sampler_lay(&d->s, MOST_TEXT, d->trie, MOST_OPS, &d->memory);
    sampler_lay_scratch(&d->scratch, n_vocab, &d->memory);
}

static inline struct drawing *make_with(const struct token_trie *trie, int32_t n_vocab, const struct sampler_params *p)
{
    struct drawing *d = malloc(sizeof *d);
    assert_non_null(d);
    d->trie = trie;
    arena_dry(&d->memory);
    lay(d, n_vocab);
    assert_int_equal(arena_map(&d->memory, d->memory.used), ST_OK);
    lay(d, n_vocab);
    d->s.params = *p;
    return d;
}

static inline struct drawing *make(int32_t n_vocab, const struct sampler_params *p)
{
    return make_with(NULL, n_vocab, p);
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
