/* Many texts in one session, and each alone: the ways to run them, which must not change a bit of any. */
#ifndef HEARTH_TESTS_CROWD_H
#define HEARTH_TESTS_CROWD_H

#include "tests/engine/made_model.h"

struct crowd_way {
    int ranks, split, residual;
    enum sparse_mode sparse;
    uint32_t n_sequences, n_batch, pages; /* pages: of all KV memory, as far as a rank has it all; 0: enough */
};

/* The options with the way's. *page_bytes of the way before, where it says how many pages. */
static inline struct cluster *start_way(struct cluster_options o, const struct crowd_way *way, uint64_t *page_bytes)
{
    o.ranks = way->ranks;
    o.split = way->split;
    o.residual = way->residual;
    o.sparse = way->sparse;
    o.n_sequences = way->n_sequences;
    o.n_batch = way->n_batch;
    o.kv_budget = way->pages * *page_bytes;
    struct cluster *c = start(&o);
    *page_bytes = cluster_page_bytes(c);
    return c;
}

/* A text of n tokens that has begun in the session, with its first wish. */
static inline struct sequence *begin(struct session *s, const int32_t *tokens, uint32_t n, const struct wish *wish,
                                     const struct sampler_params *sampling)
{
    struct sequence *q;
    assert_int_equal(session_open(s, &q), ST_OK);
    assert_int_equal(session_text(s, q, tokens, n), ST_OK);
    assert_int_equal(session_submit(s, q, wish, sampling), ST_OK);
    return q;
}

/* Whose event it is, of those that have begun. */
static inline uint32_t whose(struct sequence *const *q, const struct session_event *e)
{
    uint32_t i = 0;
    while (q[i] != e->sequence)
        i++;
    return i;
}

/* Text i of the test's own, from its beginning to its end, on a cluster where nothing else runs. */
typedef void run_text(struct cluster *c, int i);

static inline void run_alone(const struct cluster_options *o, int n, run_text *run)
{
    struct cluster *c = start(o);
    for (int i = 0; i < n; i++)
        run(c, i);
    cluster_stop(c);
}

#endif
