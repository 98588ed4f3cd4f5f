/* The sum of a text's final states is the same bits however the text is cut into steps, whatever the plan, and whoever
 * runs beside it or has begun alike. */
#include "tests/engine/crowd.h"

#include "wire/runs.h"

enum { CONTEXT = 200, TEXTS = 5, ROW = 64 /* made_quantised's d_model */ };

static char path[MADE_NAME];

static struct text {
    int32_t tokens[CONTEXT];
    uint32_t n, from;
    int64_t sum[ROW];  /* one token a step, alone */
} texts[TEXTS];

/* They begin alike. */
static void write_texts(void)
{
    static const uint32_t lengths[TEXTS] = {150, 1, 64, 199, 130}, from[TEXTS] = {0, 0, 0, 3, 100};
    for (uint64_t i = 0; i < TEXTS; i++) {
        uint64_t common = 1, own = 50 + i;
        texts[i].n = lengths[i];
        texts[i].from = from[i];
        for (uint32_t k = 0; k < texts[i].n; k++)
            texts[i].tokens[k] = (int32_t)(made_draw(k < 120 ? &common : &own) % MADE_VOCABULARY);
    }
}

/* Several texts at once; what each adds up to. */
static void take_sums(struct session *s, const struct text *t, uint32_t n, int64_t (*sums)[ROW])
{
    struct sequence *q[TEXTS];
    memset(sums, 0, n * sizeof *sums);
    for (uint32_t i = 0; i < n; i++)
        q[i] = begin(s, t[i].tokens, t[i].n, &(struct wish){.kind = WISH_SUM, .from = t[i].from}, NULL);
    for (uint32_t over = 0; over < n;) {
        struct session_event e;
        assert_int_equal(session_wait(s, &e), ST_OK);
        assert_int_equal(e.st, ST_OK);
        assert_int_equal(e.answer.n_values, e.kind == WISH_SUM ? 2 * ROW : 0);
        if (e.kind == WISH_SUM)
            wire_sum_add(sums[whose(q, &e)], e.answer.values, ROW);
        over += e.over;
    }
    for (uint32_t i = 0; i < n; i++)
        session_close(s, q[i]);
}

/* The states one after another, as WISH_STATES brings them. */
static void add_states(struct cluster *c, int which)
{
    struct session *s = cluster_session(c);
    struct text *t = &texts[which];
    struct sequence *q;
    struct session_event e;
    assert_int_equal(session_open(s, &q), ST_OK);
    for (uint32_t i = 0; i < t->n; i++) {
        assert_int_equal(session_text(s, q, &t->tokens[i], 1), ST_OK);
        assert_int_equal(session_submit(s, q, &(struct wish){.kind = WISH_STATES}, NULL), ST_OK);
        assert_int_equal(session_wait(s, &e), ST_OK);
        assert_true(e.over && e.answer.n_values == ROW);
        if (i >= t->from)
            wire_sum_state(t->sum, e.answer.values, ROW);
    }
    session_close(s, q);
}

static struct cluster_options options(void)
{
    struct cluster_options o = plain_options(path);
    o.n_ctx = CONTEXT;
    return o;
}

static int take_made(void **state)
{
    (void)state;
    made_model_write(&made_quantised, path);
    write_texts();
    const struct cluster_options o = options();
    run_alone(&o, TEXTS, add_states);
    return 0;
}

static int remove_made(void **state)
{
    (void)state;
    return unlink(path);
}

static void sums_do_not_depend_on_how_a_text_runs(void **state)
{
    (void)state;
    static const struct crowd_way ways[] = {
        {1, -1, -1, SPARSE_DENSE, 1, 256, 0},
        {1, -1, -1, SPARSE_DENSE, 5, 7, 4}, /* too few: they run again from where they were */
        {2, SPLIT_STAGES, 0, SPARSE_DENSE, 5, 50, 0},
        {3, SPLIT_SHARDS, 1, SPARSE_DENSE, 3, 96, 0},
        {3, SPLIT_BOTH, 0, SPARSE_DENSE, 5, 33, 0},
    };
    uint64_t page_bytes = 0;
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        int64_t sums[TEXTS][ROW];
        struct cluster *c = start_way(options(), &ways[i], &page_bytes);
        for (int again = 0; again < 2; again++) { /* then the beginnings of before are kept */
            take_sums(cluster_session(c), texts, TEXTS, sums);
            for (int t = 0; t < TEXTS; t++)
                assert_memory_equal(sums[t], texts[t].sum, sizeof texts[t].sum);
        }
        cluster_stop(c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(sums_do_not_depend_on_how_a_text_runs)};
    return cmocka_run_group_tests(tests, take_made, remove_made);
}
