/* Whatever rank dies and whenever, every job of the engine is over once. */
#include "tests/engine/serve_engine.h"

#include "base/log.h"
#include "transport/transport.h"

/* ---- a transport that ends, when a test says so ---- */

static struct {
    int rank, n;
    _Atomic int at; /* at the at-th message that the rank sends, from 1; 0: never */
} plot;

struct torn {
    struct transport base;
    struct transport *inner;
};

static struct transport *inner(struct transport *t) { return ((struct torn *)t)->inner; }
static status torn_connect(struct transport *t) { return transport_connect(inner(t)); }
static status torn_register(struct transport *t, void *p, size_t n) { return transport_register(inner(t), p, n); }
static status torn_sent(struct transport *t, struct send *s, bool *done) { return transport_sent(inner(t), s, done); }
static status torn_release(struct transport *t, struct arrival *a) { return transport_release(inner(t), a); }
static void torn_idle(struct transport *t) { transport_idle(inner(t)); }
static void torn_abandon(struct transport *t, const char *why) { transport_abandon(inner(t), why); }

static status torn_lend(struct transport *t, int from, int channel, void *p, size_t n)
{
    return transport_lend(inner(t), from, channel, p, n);
}

static status torn_post(struct transport *t, int to, int kind, const void *data, size_t size, struct send *s)
{
    if (plot.at && t->rank == plot.rank && ++plot.n == plot.at) {
        transport_abandon(inner(t), "it is torn");
        log_error("it is torn");
        return ST_PEER;
    }
    return transport_post(inner(t), to, kind, data, size, s);
}

static status torn_poll(struct transport *t, uint32_t kinds, struct arrival *a, bool *found)
{
    return transport_poll(inner(t), kinds, a, found);
}

static void torn_close(struct transport *t)
{
    transport_close(inner(t));
    free(t);
}

status __real_transport_inproc_open(const struct transport_config *c, int n_ranks, struct transport **out);
status __wrap_transport_inproc_open(const struct transport_config *c, int n_ranks, struct transport **out);

status __wrap_transport_inproc_open(const struct transport_config *c, int n_ranks, struct transport **out)
{
    static const struct transport_ops ops = {
        .name = "torn", .connect = torn_connect, .register_memory = torn_register, .lend = torn_lend,
        .post = torn_post, .sent = torn_sent, .poll = torn_poll, .release = torn_release, .idle = torn_idle,
        .abandon = torn_abandon, .close = torn_close};
    assert_int_equal(__real_transport_inproc_open(c, n_ranks, out), ST_OK);
    for (int r = 0; r < n_ranks; r++) {
        struct torn *t = malloc(sizeof *t);
        assert_non_null(t);
        *t = (struct torn){.base = {.ops = &ops, .rank = r, .n_ranks = n_ranks}, .inner = out[r]};
        out[r] = &t->base;
    }
    return ST_OK;
}

/* ---- failure ---- */

static void a_rank_that_dies_ends_all_jobs(void **state)
{
    (void)state;
    static const struct {
        int ranks, split;
    } shapes[] = {{2, SPLIT_SHARDS}, {3, SPLIT_STAGES}};
    int n = 0;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const struct cluster_options o = options(shapes[i].ranks, shapes[i].split, 8, 16);
        for (int rank = 0; rank < shapes[i].ranks; rank++) {
            for (int at = 1; at < 2000; at = at * 3 + 1) {
                struct log_catcher caught;
                open_world(&o, 4, 20, true);
                make_crowd(texts, 12);
                for (int j = 0; j < 12; j++) {
                    texts[j].job.ignore_end = true;
                    submit(&texts[j]);
                }
                plot.n = 0;
                plot.rank = rank;
                plot.at = at;
                log_catch(&caught);
                const status st = engine_run(w.e);
                struct job *late = &texts[12].job;
                assert_int_equal(engine_submit(w.e, &late, 1), ST_PEER);
                for (int j = 0; j < 12; j++) {
                    assert_true(texts[j].order > 0);
                    assert_true(st || texts[j].end == JOB_LIMIT);
                }
                assert_true(st == ST_OK || (st == ST_PEER && caught.first_error[0]));
                n += st == ST_PEER;
                plot.at = 0;
                engine_free(w.e);
                cluster_stop(w.c);
                log_catch(NULL);
            }
        }
    }
    assert_true(n >= 25);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_rank_that_dies_ends_all_jobs),
    };
    return cmocka_run_group_tests(tests, write_model, remove_model);
}
