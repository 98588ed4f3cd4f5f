/* Ranks that tell each other of their GPUs, and what becomes of it where one is of another release, says something
 * wrong, fails or dies: all come to their end (ctest's time limit), and it is said why. */
#include "tests/engine/engine.h"

#include <pthread.h>
#include "base/log.h"
#include "node/hear.h"
#include "node/offers.h"
#include "node/roll_call.h"
#include "transport/deliver.h"
#include "wire/channels.h"
#include "worker/worker.h"

enum { RANKS = 3 };

/* What rank 1 does; the others do what they should, but for a rank 2 that says nothing while rank 1 says it twice. */
enum part { GOOD, BROKEN, TWICE, FAILS, DIES, TO_RANK_2, PARTS, SILENT };

/* A rank in a thread of its own. */
struct rank {
    struct transport *t;
    enum part part;
    struct wire_gpus offers[RANKS];
    struct log_catcher caught;
    pthread_t thread;
    status ended;
};

static void open_ranks(struct rank *ranks, int n)
{
    struct transport_config config = {0};
    struct transport *t[RANKS];
    wire_channels(config.channel, TRANSPORT_KINDS);
    assert_int_equal(transport_inproc_open(&config, n, t), ST_OK);
    for (int r = 0; r < n; r++)
        ranks[r] = (struct rank){.t = t[r]};
}

static status exchange(struct rank *r)
{
    const int rank = r->t->rank;
    r->offers[rank] = (struct wire_gpus){.n = (uint32_t)rank + 1, .at = {[0] = {.layers = 5 + (uint32_t)rank}}};
    status st = offers_exchange(r->t, r->offers);
    if (st && st != ST_PEER)
        worker_fail(r->t, r->caught.first_error);
    return st;
}

static status play(struct rank *r)
{
    static _Alignas(TRANSPORT_ALIGN) uint8_t broken[4] = {WIRE_GPUS_MOST + 1}, none[4];
    struct arrival a;
    switch (r->part) {
    case BROKEN:
        assert_int_equal(deliver(r->t, 0, WIRE_GPUS, broken, sizeof broken), ST_OK);
        break;
    case TWICE:
        assert_int_equal(deliver(r->t, 0, WIRE_GPUS, none, sizeof none), ST_OK);
        break;
    case FAILS:
        worker_fail(r->t, "no more");
        return ST_PEER;
    case DIES:
        transport_abandon(r->t, "it is torn");
        return ST_PEER;
    case SILENT:
        return hear(r->t, 0, 0, &a);
    case TO_RANK_2:
        (void)deliver(r->t, 2, WIRE_GPUS, none, sizeof none);
        break;
    default:
        break;
    }
    return exchange(r);
}

static void *run_rank(void *arg)
{
    struct rank *r = arg;
    log_catch(&r->caught);
    r->ended = play(r);
    log_catch(NULL);
    transport_close(r->t);
    return NULL;
}

static void expect(const struct rank *r, status st, const char *says)
{
    if (r->ended != st || !strstr(r->caught.first_error, says))
        fail_msg("%s, '%s', expected %s, '%s'", status_name(r->ended), r->caught.first_error, status_name(st), says);
}

static void test_exchange(void **state)
{
    (void)state;
    static const struct {
        status ends; /* rank 0 */
        const char *says;
    } expected[PARTS] = {
        {ST_OK, ""},
        {ST_FORMAT, "from rank 1: GPUS message: n is 17, expected 0 to 16"},
        {ST_FORMAT, "rank 1: GPUS a second time"},
        {ST_PEER, "rank 1: no more"},
        {ST_PEER, "rank 1: it is torn"},
        {ST_PEER, "rank 2: GPUS from rank 1, expected them from rank 0"},
    };
    for (int part = 0; part < PARTS; part++) {
        struct rank ranks[RANKS];
        open_ranks(ranks, RANKS);
        ranks[1].part = (enum part)part;
        ranks[2].part = part == TWICE ? SILENT : GOOD;
        for (int r = 0; r < RANKS; r++)
            assert_int_equal(pthread_create(&ranks[r].thread, NULL, run_rank, &ranks[r]), 0);
        for (int r = 0; r < RANKS; r++)
            pthread_join(ranks[r].thread, NULL);
        if (part != TO_RANK_2 || ranks[0].ended == ST_PEER) /* rank 0 may have been through before */
            expect(&ranks[0], expected[part].ends, expected[part].says);
        for (int r = 1; r < RANKS; r++)
            assert_true((ranks[r].ended == ST_OK) == (part == GOOD));
        for (int r = 0; r < RANKS && part == GOOD; r++)
            for (int of = 0; of < RANKS; of++)
                assert_true(ranks[r].offers[of].n == (uint32_t)of + 1 &&
                            ranks[r].offers[of].at[0].layers == 5 + (uint32_t)of);
    }
}

/* A rank of a build that told of its GPUs before it said who it is. */
static void *tell_first(void *arg)
{
    static _Alignas(TRANSPORT_ALIGN) uint8_t none[4];
    struct rank *r = arg;
    struct arrival a;
    bool found = false;
    log_catch(&r->caught);
    r->ended = deliver(r->t, 0, WIRE_GPUS, none, sizeof none);
    while (!r->ended && !found)
        r->ended = transport_poll(r->t, 1u << WIRE_GPUS, &a, &found);
    log_catch(NULL);
    transport_close(r->t);
    return NULL;
}

static void test_other_order(void **state)
{
    (void)state;
    const struct wire_hello own = {.version = WIRE_VERSION, .release = "1.2"};
    struct rank ranks[2];
    struct wire_hello hellos[2];
    open_ranks(ranks, 2);
    assert_int_equal(pthread_create(&ranks[1].thread, NULL, tell_first, &ranks[1]), 0);
    log_catch(&ranks[0].caught);
    ranks[0].ended = roll_call(ranks[0].t, &own, hellos);
    log_catch(NULL);
    expect(&ranks[0], ST_MISMATCH, "from rank 1: GPUS where a HELLO was expected: install the same version everywhere");
    pthread_join(ranks[1].thread, NULL);
    assert_int_equal(ranks[1].ended, ST_PEER);
    transport_close(ranks[0].t);
}

/* Rank 0 of such a build: it tells all others, and waits until they tell it. (That their hellos arrive is all that the
 * transport sees to.) */
static void *lead_by_telling(void *arg)
{
    static _Alignas(TRANSPORT_ALIGN) uint8_t none[4];
    struct rank *r = arg;
    struct send sends[RANKS];
    struct arrival a;
    bool found;
    log_catch(&r->caught);
    for (int to = 1; to < RANKS && !r->ended; to++)
        r->ended = transport_post(r->t, to, WIRE_GPUS, none, sizeof none, &sends[to]);
    while (!r->ended) {
        r->ended = transport_poll(r->t, 1u << WIRE_GPUS | 1u << WIRE_HELLO, &a, &found);
        if (!r->ended && found)
            r->ended = transport_release(r->t, &a);
    }
    log_catch(NULL);
    transport_close(r->t);
    return NULL;
}

static void *join_it(void *arg)
{
    const struct wire_hello own = {.version = WIRE_VERSION, .release = "1.2"};
    struct rank *r = arg;
    log_catch(&r->caught);
    r->ended = worker_join(r->t, &own);
    if (r->ended == ST_FORMAT)
        transport_abandon(r->t, r->caught.first_error);
    log_catch(NULL);
    transport_close(r->t);
    return NULL;
}

static void test_other_order_of_rank_0(void **state)
{
    (void)state;
    struct rank ranks[RANKS];
    open_ranks(ranks, RANKS);
    for (int r = 0; r < RANKS; r++)
        assert_int_equal(pthread_create(&ranks[r].thread, NULL, r ? join_it : lead_by_telling, &ranks[r]), 0);
    for (int r = 0; r < RANKS; r++)
        pthread_join(ranks[r].thread, NULL);
    expect(&ranks[0], ST_PEER, ": GPUS from rank 0 where a WELCOME was expected: install the same version everywhere");
    for (int r = 1; r < RANKS; r++)
        assert_int_not_equal(ranks[r].ended, ST_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exchange),
        cmocka_unit_test(test_other_order),
        cmocka_unit_test(test_other_order_of_rank_0),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
