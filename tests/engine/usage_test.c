/* Where a step's time went and what was sent for it: parts are never negative and sum up, one rank sends nothing, and
 * messages and bytes are those of the exchanges that the plan makes; and whose neurons fired. */
#include "tests/engine/made_model.h"

#include <math.h>

#include "cli/time_split.h"

enum { TOKENS = 5, CONTEXT = 64 };

static char model_path[MADE_NAME];

static int write_model(void **state)
{
    (void)state;
    made_model_write(&made_quantised, model_path);
    return 0;
}

static int remove_model(void **state)
{
    (void)state;
    return unlink(model_path);
}

static void assert_sums(struct time_split t, double elapsed_s)
{
    assert_true(t.compute_s >= 0 && t.wire_s >= 0 && t.wait_s >= 0);
    assert_true(fabs(t.compute_s + t.wire_s + t.wait_s - elapsed_s) <= 1e-9 * elapsed_s);
}

static void parts_sum_to_the_whole(void **state)
{
    (void)state;
    /* One after the other: 10 s, of which stages account for 8; the rest was between them. */
    struct wire_usage u = {.messages = 3, .run_ns = 8000000000, .wire_ns = 1000000000, .wait_ns = 2000000000};
    struct time_split t = split_time(10, &u);
    assert_sums(t, 10);
    assert_true(fabs(t.wire_s - 3) < 1e-9 && fabs(t.wait_s - 2) < 1e-9 && fabs(t.compute_s - 5) < 1e-9);
    /* Overlapped: stages account for twice what went by. */
    t = split_time(4, &u);
    assert_sums(t, 4);
    assert_true(fabs(t.wire_s - 0.5) < 1e-9 && fabs(t.wait_s - 1) < 1e-9);
    /* Nobody to talk to: all is computing. */
    u = (struct wire_usage){.run_ns = 8000000000};
    t = split_time(10, &u);
    assert_sums(t, 10);
    assert_true(t.wire_s == 0 && t.wait_s == 0);
}

/* Counts what `run` tokens send after the cluster has started. */
static struct wire_usage spend(struct cluster *c, size_t n)
{
    struct session *s = cluster_session(c);
    struct wire_usage before, after, again;
    int32_t next = 1;
    assert_int_equal(session_usage(s, &before, NULL), ST_OK);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(dialogue_next(cluster_dialogue(c), next, &next), ST_OK);
    assert_int_equal(session_usage(s, &after, NULL), ST_OK);
    assert_int_equal(session_usage(s, &again, NULL), ST_OK);
    assert_memory_equal(&after, &again, sizeof after); /* asking counts for nothing */
    return (struct wire_usage){.messages = after.messages - before.messages, .bytes = after.bytes - before.bytes,
                               .run_ns = after.run_ns - before.run_ns, .wire_ns = after.wire_ns - before.wire_ns,
                               .wait_ns = after.wait_ns - before.wait_ns};
}

static void one_rank_sends_nothing(void **state)
{
    (void)state;
    struct cluster_options o = plain_options(model_path);
    struct cluster *c = start(&o);
    struct wire_usage u = spend(c, TOKENS);
    assert_true(u.messages == 0 && u.bytes == 0 && u.wire_ns == 0 && u.wait_ns == 0 && u.run_ns > 0);
    cluster_stop(c);
}

/* In all of a step's exchanges a request goes to every owner and an answer comes back. */
static void messages_are_those_of_the_plan(void **state)
{
    (void)state;
    for (int ranks = 2; ranks <= 3; ranks++) {
        struct cluster_options o = plain_options(model_path);
        o.n_ctx = CONTEXT;
        o.ranks = ranks;
        o.residual = 0;
        struct cluster *c = start(&o);
        const uint64_t others = (uint64_t)ranks - 1, layers = (uint64_t)cluster_model(c)->hp.n_layers;
        struct wire_usage u = spend(c, TOKENS);
        const uint64_t ffn = TOKENS * 2 * others * (layers + 1); /* and one for the output */
        assert_true(u.messages >= ffn && u.messages <= ffn + TOKENS * 2 * others * layers); /* whose heads are cut */
        assert_int_equal(u.messages % (2 * TOKENS), 0);
        assert_true(u.bytes > u.messages * WIRE_HEADER);
        assert_true(u.run_ns > 0 && u.wire_ns + u.wait_ns <= u.run_ns);
        cluster_stop(c);

        o.residual = 1; /* sums go all ways at once, the logits to one rank: every rank's times are the first one's */
        c = start(&o);
        u = spend(c, TOKENS);
        assert_true(u.messages >= TOKENS * others * layers && u.bytes > u.messages * WIRE_HEADER / 2);
        assert_true(u.run_ns > 0 && u.wire_ns + u.wait_ns <= u.run_ns);
        cluster_stop(c);

        o.residual = -1;
        o.split = SPLIT_STAGES;
        c = start(&o);
        u = spend(c, TOKENS);
        assert_int_equal(u.messages, TOKENS * (others + 1)); /* from stage to stage, and the result */
        assert_true(u.wire_ns == 0 && u.wait_ns == 0); /* a stage that holds its neurons asks nobody */
        cluster_stop(c);
    }
}

/* What the ranks say of their neurons since `before`, added up; each has looked at some, and some fired. */
static struct wire_counts neurons_since(int n, const struct wire_usage *before, const struct wire_usage *after)
{
    struct wire_counts sum = {0};
    for (int r = 0; r < n; r++) {
        const struct wire_device *b = &before[r].devices[0], *a = &after[r].devices[0];
        assert_int_equal(after[r].n_devices, 1);
        assert_true(a->live > b->live && a->live - b->live < a->neurons - b->neurons);
        sum.neurons += a->neurons - b->neurons;
        sum.live += a->live - b->live;
    }
    return sum;
}

/* Together as much as the session has counted, whichever way the sums go, and with ranks that are stages only. */
static void neurons_are_those_of_ranks(void **state)
{
    (void)state;
    static const struct {
        int split, residual;
    } ways[] = {{SPLIT_SHARDS, 0}, {SPLIT_SHARDS, 1}, {SPLIT_STAGES, -1}, {SPLIT_BOTH, 0}};
    uint64_t looked = 0, live = 0;
    for (int ranks = 1; ranks <= 3; ranks++) {
        for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
            struct cluster_options o = plain_options(model_path);
            struct wire_usage sum, before[3], after[3];
            int32_t next = 1;
            o.n_ctx = CONTEXT;
            o.ranks = ranks;
            o.split = ways[i].split;
            o.residual = ways[i].residual;
            o.activation = "relu";
            o.sparse = SPARSE_EXACT;
            struct cluster *c = start(&o);
            struct session *s = cluster_session(c);
            assert_int_equal(session_usage(s, &sum, before), ST_OK);
            session_reset_counts(s);
            for (int t = 0; t < TOKENS; t++)
                assert_int_equal(dialogue_next(cluster_dialogue(c), next, &next), ST_OK);
            assert_int_equal(session_usage(s, &sum, after), ST_OK);
            const struct wire_counts counts = session_counts(s), found = neurons_since(ranks, before, after);
            assert_int_equal(found.neurons, counts.neurons);
            assert_int_equal(found.live, counts.live);
            if (!looked)
                looked = counts.neurons, live = counts.live;
            assert_true(counts.neurons == looked && counts.live == live); /* wherever they are */
            cluster_stop(c);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_sum_to_the_whole),
        cmocka_unit_test(one_rank_sends_nothing),
        cmocka_unit_test(messages_are_those_of_the_plan),
        cmocka_unit_test(neurons_are_those_of_ranks),
    };
    return cmocka_run_group_tests(tests, write_model, remove_model);
}
