/* The transport with delays keeps a transport's contract, whatever the delays are; and it notices a run that nobody
 * could ever end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "tests/conformance/transport_conformance.h"
#include "tests/sim/delays.h"
#include "wire/wire.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SEEDS = 3 };
#else
enum { SEEDS = 8 };
#endif

enum { MAX_RANKS = 4 };

struct rank_run {
    struct transport *t;
    struct check check;
};

static void *run_cases(void *arg)
{
    struct rank_run *run = arg;
    conformance_run(run->t, &run->check);
    return NULL;
}

static int run_cluster(int n_ranks, const struct delays *d, void *(*body)(void *))
{
    const struct transport_config config = conformance_config();
    struct transport *t[MAX_RANKS];
    struct rank_run runs[MAX_RANKS] = {0};
    pthread_t threads[MAX_RANKS];
    int failures = 0;
    assert_int_equal(delays_open(&config, n_ranks, d, t), ST_OK);
    for (int r = 0; r < n_ranks; r++) {
        runs[r].t = t[r];
        assert_int_equal(pthread_create(&threads[r], NULL, body, &runs[r]), 0);
    }
    for (int r = 0; r < n_ranks; r++)
        pthread_join(threads[r], NULL);
    for (int r = 0; r < n_ranks; r++) {
        if (runs[r].check.failures)
            print_error("seed %llu, %d ranks: rank %d: %s\n", (unsigned long long)d->seed, n_ranks, r,
                        runs[r].check.first);
        failures += runs[r].check.failures;
    }
    return failures;
}

static void conforms(void **state)
{
    (void)state;
    int failures = 0;
    for (int seed = 0; seed < SEEDS; seed++) {
        const int n_ranks = 1 + seed % MAX_RANKS;
        const struct delays d = delays_draw((uint64_t)seed, n_ranks);
        failures += run_cluster(n_ranks, &d, run_cases);
    }
    assert_int_equal(failures, 0);
}

/* Each waits for the other; rank 1's message to rank 2 is one that nobody takes. */
static void *wait_for_each_other(void *arg)
{
    struct rank_run *run = arg;
    struct log_catcher caught = {0};
    struct arrival a;
    struct send s;
    bool flag = false;
    status st = transport_connect(run->t);
    log_catch(&caught);
    if (!st && run->t->rank == 1)
        st = transport_post(run->t, 2, WIRE_STEP, "x", 1, &s);
    while (!st && !flag)
        st = run->t->rank == 1 ? transport_sent(run->t, &s, &flag)
                               : transport_poll(run->t, 1u << WIRE_RESULT, &a, &flag);
    log_catch(NULL);
    CHECK(&run->check, st == ST_PEER);
    const char *why = caught.first_error; /* empty on the rank that has noticed */
    CHECK(&run->check, !*why || (strstr(why, "rank 0 waits for RESULT;") && strstr(why, "its STEP to 2 to go;") &&
                                 strstr(why, "not taken: STEP 1 to 2;")));
    transport_close(run->t);
    return NULL;
}

static void notices_that_nobody_moves(void **state)
{
    (void)state;
    const struct delays d = {.seed = 1, .each = 10, .slow = -1, .from = -1};
    assert_int_equal(run_cluster(3, &d, wait_for_each_other), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(conforms),
        cmocka_unit_test(notices_that_nobody_moves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
