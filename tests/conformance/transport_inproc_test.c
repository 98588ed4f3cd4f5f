/* The in-process transport: the conformance cases on threads, and what only it can be tested for: peers that fail and
 * endpoints that go in any order. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "tests/conformance/transport_conformance.h"

enum { MAX_RANKS = 7 };

struct rank_run {
    struct transport *t;
    struct check check;
};

static status open_all(int n_ranks, struct transport **t)
{
    const struct transport_config config = conformance_config();
    return transport_inproc_open(&config, n_ranks, t);
}

static void *run_cases(void *arg)
{
    struct rank_run *run = arg;
    conformance_run(run->t, &run->check);
    return NULL;
}

static void run_cluster(int n_ranks, void *(*body)(void *))
{
    struct transport *t[MAX_RANKS];
    struct rank_run runs[MAX_RANKS] = {0};
    pthread_t threads[MAX_RANKS];
    assert_int_equal(open_all(n_ranks, t), ST_OK);
    for (int r = 0; r < n_ranks; r++) {
        assert_int_equal(t[r]->rank, r);
        assert_int_equal(t[r]->n_ranks, n_ranks);
        runs[r].t = t[r];
        assert_int_equal(pthread_create(&threads[r], NULL, body, &runs[r]), 0);
    }
    for (int r = 0; r < n_ranks; r++)
        pthread_join(threads[r], NULL);
    for (int r = 0; r < n_ranks; r++) {
        if (runs[r].check.failures)
            print_error("rank %d: %s\n", r, runs[r].check.first);
        assert_int_equal(runs[r].check.failures, 0);
    }
}

static void conforms_with_1_to_4_and_7_ranks(void **state)
{
    (void)state;
    static const int ranks[] = {1, 2, 3, 4, 7};
    for (size_t i = 0; i < sizeof ranks / sizeof *ranks; i++)
        run_cluster(ranks[i], run_cases);
}

static void *wait_for_failure(void *arg)
{
    struct rank_run *run = arg;
    struct transport *t = run->t;
    struct log_catcher catcher = {0};
    struct arrival a;
    struct send s;
    bool flag;
    log_catch(&catcher);
    if (t->rank == 1) {
        transport_abandon(t, "the disk burns");
        CHECK(&run->check, transport_poll(t, ~0u, &a, &flag) == ST_PEER && !catcher.first_error[0]);
    } else {
        /* Nobody ever receives the message; the failure of a rank ends the wait. */
        status st = transport_post(t, 2, 2, "x", 1, &s);
        while (st == ST_OK)
            st = transport_sent(t, &s, &flag);
        CHECK(&run->check, st == ST_PEER);
        CHECK(&run->check, strstr(catcher.first_error, "rank 1: the disk burns") != NULL);
        catcher.first_error[0] = '\0';
        CHECK(&run->check, transport_poll(t, ~0u, &a, &flag) == ST_PEER);
        CHECK(&run->check, transport_post(t, 0, 2, "x", 1, &s) == ST_PEER);
        CHECK(&run->check, transport_sent(t, &s, &flag) == ST_PEER);
        CHECK(&run->check, catcher.first_error[0] == '\0'); /* logged once */
    }
    log_catch(NULL);
    transport_close(t);
    return NULL;
}

static void peers_of_a_failed_rank_get_st_peer(void **state)
{
    (void)state;
    for (int i = 0; i < 50; i++)
        run_cluster(4, wait_for_failure);
}

/* What a test's second thread does with an endpoint. */
struct leaver {
    struct transport *t;
    _Atomic bool left;
};

static void *leave_in_anger(void *arg)
{
    struct leaver *l = arg;
    transport_abandon(l->t, "gone");
    l->left = true;
    return NULL;
}

static void *leave_in_peace(void *arg)
{
    struct leaver *l = arg;
    transport_close(l->t);
    l->left = true;
    return NULL;
}

/* A message that is being read stays whole until it is released, though its sender fails meanwhile. */
static void a_failing_rank_waits_for_readers(void **state)
{
    (void)state;
    struct leaver l = {0};
    struct transport *t[2];
    struct send s;
    struct arrival a;
    struct log_catcher catcher = {0};
    pthread_t thread;
    bool found = false;
    assert_int_equal(open_all(2, t), ST_OK);
    log_catch(&catcher);
    assert_int_equal(transport_post(t[1], 0, 4, "x", 1, &s), ST_OK);
    assert_int_equal(transport_poll(t[0], 1u << 4, &a, &found), ST_OK);
    assert_true(found);
    assert_ptr_equal(a.data, s.data); /* in place */
    l.t = t[1];
    assert_int_equal(pthread_create(&thread, NULL, leave_in_anger, &l), 0);
    for (int i = 0; i < 1000; i++) {
        assert_false(l.left);
        sched_yield();
    }
    /* In the middle of reading, as worker/exchange.c does. */
    assert_int_equal(transport_poll(t[0], 0, &a, &found), ST_OK);
    assert_false(atomic_load(&s.done));
    while (transport_poll(t[0], 1u << 4, &a, &found) != ST_PEER) /* which gives back what it holds */
        sched_yield();
    assert_int_equal(transport_release(t[0], &a), ST_PEER);
    pthread_join(thread, NULL);
    transport_abandon(t[0], "the second reason is not the cause");
    log_catch(NULL);
    assert_string_equal(catcher.first_error, "rank 1: gone");
    transport_close(t[1]);
    transport_close(t[0]);
}

static void sends_to_a_closed_endpoint_are_done(void **state)
{
    (void)state;
    struct transport *t[2];
    struct send before, after;
    bool done = false;
    assert_int_equal(open_all(2, t), ST_OK);
    assert_int_equal(transport_post(t[0], 1, 4, "x", 1, &before), ST_OK);
    assert_int_equal(transport_sent(t[0], &before, &done), ST_OK);
    assert_false(done);
    transport_close(t[1]);
    assert_int_equal(transport_post(t[0], 1, 4, "x", 1, &after), ST_OK);
    assert_int_equal(transport_sent(t[0], &before, &done), ST_OK);
    assert_true(done);
    assert_int_equal(transport_sent(t[0], &after, &done), ST_OK);
    assert_true(done);
    transport_close(t[0]);
}

/* A closed sender's messages vanish from the inboxes, but for one that is being read: close waits for that. What others
 * sent is still there. */
static void messages_of_a_closed_endpoint_vanish(void **state)
{
    (void)state;
    struct leaver l = {0};
    struct transport *t[3];
    struct send s[6];
    struct arrival a, held;
    pthread_t thread;
    bool found = false;
    assert_int_equal(open_all(3, t), ST_OK);
    for (int i = 0; i < 5; i++)
        assert_int_equal(transport_post(t[1 + i % 2], 0, 4, &"abcde"[i], 1, &s[i]), ST_OK);
    assert_int_equal(transport_poll(t[0], 1u << 4, &held, &found), ST_OK);
    assert_true(found && held.from == 1);
    l.t = t[1];
    assert_int_equal(pthread_create(&thread, NULL, leave_in_peace, &l), 0);
    for (int i = 0; i < 1000; i++) {
        assert_false(l.left);
        assert_int_equal(*(char *)held.data, 'a');
        sched_yield();
    }
    assert_int_equal(transport_release(t[0], &held), ST_OK);
    pthread_join(thread, NULL);
    memset(&s[0], 0xff, sizeof s[0]);
    memset(&s[2], 0xff, sizeof s[2]);
    memset(&s[4], 0xff, sizeof s[4]);
    assert_int_equal(transport_post(t[2], 0, 4, "f", 1, &s[5]), ST_OK);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(transport_poll(t[0], 1u << 4, &a, &found), ST_OK);
        assert_true(found && a.from == 2);
        assert_int_equal(*(char *)a.data, "bdf"[i]);
        assert_int_equal(transport_release(t[0], &a), ST_OK);
    }
    assert_int_equal(transport_poll(t[0], ~0u, &a, &found), ST_OK);
    assert_false(found);
    transport_close(t[0]);
    transport_close(t[2]);
}

/* Ranks send to each other and leave at once, while others still receive: for the sanitizers. */
static void *leave_early(void *arg)
{
    struct rank_run *run = arg;
    struct transport *t = run->t;
    struct log_catcher catcher = {0};
    char data[4096] = {0};
    struct send sends[MAX_RANKS][8];
    log_catch(&catcher);
    for (int r = 0; r < t->n_ranks; r++) {
        for (int i = 0; i < 8; i++)
            CHECK(&run->check, transport_post(t, r, i, data, sizeof data, &sends[r][i]) == ST_OK);
    }
    for (int i = 0; i < 10 * (t->rank + 1); i++) {
        struct arrival a;
        bool found = false;
        CHECK(&run->check, transport_poll(t, ~0u, &a, &found) == ST_OK);
        for (size_t k = 0; found && k < a.size; k++)
            CHECK(&run->check, ((const char *)a.data)[k] == 0);
        if (found && i % 3) /* close releases the others */
            CHECK(&run->check, transport_release(t, &a) == ST_OK);
    }
    log_catch(NULL);
    transport_close(t);
    memset(sends, 0xff, sizeof sends);
    memset(data, 0xff, sizeof data);
    return NULL;
}

static void endpoints_leave_in_any_order(void **state)
{
    (void)state;
    for (int i = 0; i < 200; i++)
        run_cluster(MAX_RANKS, leave_early);
}

/* transport_inproc_test stress RANKS MESSAGES: so many from every rank. */
struct stress_run {
    struct rank_run run;
    int n_messages;
};

static void *run_stress(void *arg)
{
    struct stress_run *s = arg;
    void *lent = conformance_begin(s->run.t, &s->run.check);
    transport_stress(s->run.t, &s->run.check, s->n_messages, 1);
    printf("rank %d of %d: %llu messages, %.1f MB\n", s->run.t->rank, s->run.t->n_ranks,
           (unsigned long long)s->run.t->counts.messages, (double)s->run.t->counts.bytes / 1e6);
    transport_close(s->run.t);
    free(lent);
    return NULL;
}

static int stress(int n_ranks, int n_messages)
{
    struct transport *t[MAX_RANKS];
    struct stress_run runs[MAX_RANKS] = {0};
    pthread_t threads[MAX_RANKS];
    int failures = 0;
    if (n_ranks > MAX_RANKS || open_all(n_ranks, t) != ST_OK)
        return 2;
    for (int r = 0; r < n_ranks; r++) {
        runs[r] = (struct stress_run){.run.t = t[r], .n_messages = n_messages};
        if (pthread_create(&threads[r], NULL, run_stress, &runs[r]))
            abort();
    }
    for (int r = 0; r < n_ranks; r++) {
        pthread_join(threads[r], NULL);
        failures += runs[r].run.check.failures;
        if (runs[r].run.check.failures)
            printf("rank %d: %s\n", r, runs[r].run.check.first);
    }
    printf(failures ? "failed\n" : "all in order and whole\n");
    return failures != 0;
}

static void no_ranks_are_refused(void **state)
{
    (void)state;
    struct log_catcher catcher = {0};
    log_catch(&catcher);
    assert_int_equal(open_all(0, NULL), ST_USAGE);
    log_catch(NULL);
    assert_string_not_equal(catcher.first_error, "");
}

int main(int argc, char **argv)
{
    if (argc == 4 && !strcmp(argv[1], "stress"))
        return stress(atoi(argv[2]), atoi(argv[3]));
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(conforms_with_1_to_4_and_7_ranks),
        cmocka_unit_test(peers_of_a_failed_rank_get_st_peer),
        cmocka_unit_test(a_failing_rank_waits_for_readers),
        cmocka_unit_test(sends_to_a_closed_endpoint_are_done),
        cmocka_unit_test(messages_of_a_closed_endpoint_vanish),
        cmocka_unit_test(endpoints_leave_in_any_order),
        cmocka_unit_test(no_ranks_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
