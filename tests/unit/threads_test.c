/* Pools of threads: everything is done once, whatever the threads; and a run waits for nobody who has nothing to do. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/threads.h"

enum { UNITS = 257, RUNS = 2000 };

struct counted {
    int64_t times[UNITS];
    int64_t step;
};

static void count(void *arg, int64_t begin, int64_t end, int thread)
{
    struct counted *c = arg;
    (void)thread;
    for (int64_t i = begin; i < end; i++)
        c->times[i] += c->step;
}

/* Runs of different sizes, functions' arguments and pauses, so that workers come late, twice, or not at all. */
static void count_everything(int n_threads)
{
    struct counted c[2] = {{.step = 1}, {.step = 3}};
    struct pool *p;
    int64_t expected[2][UNITS] = {{0}};
    assert_int_equal(pool_create(n_threads, &p), ST_OK);
    for (int run = 0; run < RUNS; run++) {
        const int which = run % 2;
        const int64_t n = run * 7 % UNITS + 1;
        pool_for(p, n, run % 5 + 1, count, &c[which]);
        for (int64_t i = 0; i < n; i++)
            expected[which][i] += c[which].step;
        if (run % 500 == 0)
            usleep(2000); /* they may fall asleep */
    }
    for (int which = 0; which < 2; which++)
        for (int i = 0; i < UNITS; i++)
            assert_int_equal(c[which].times[i], expected[which][i]);
    pool_destroy(p);
}

static void every_piece_is_done_once(void **state)
{
    (void)state;
    for (int n_threads = 1; n_threads <= 8; n_threads++)
        count_everything(n_threads);
}

static void one_processor_is_enough(void **state)
{
    (void)state;
    cpu_set_t all, one;
    CPU_ZERO(&one);
    assert_int_equal(sched_getaffinity(0, sizeof all, &all), 0);
    for (int i = 0; i < CPU_SETSIZE && CPU_COUNT(&one) == 0; i++)
        if (CPU_ISSET(i, &all))
            CPU_SET(i, &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    assert_int_equal(threads_available(), 1);
    count_everything(4);
    assert_int_equal(sched_setaffinity(0, sizeof all, &all), 0);
}

/* ---- a worker that the system does not let run ---- */

static sem_t stopped, go_on;

static void stop(int signal)
{
    (void)signal;
    sem_post(&stopped);
    while (sem_wait(&go_on) != 0)
        ;
}

struct meeting {
    _Atomic int here;
    pthread_t worker;
};

/* Two pieces, each of which waits for the other: so the worker has come, and says who it is. */
static void meet(void *arg, int64_t begin, int64_t end, int thread)
{
    struct meeting *m = arg;
    (void)begin;
    (void)end;
    if (thread == 1)
        m->worker = pthread_self();
    for (m->here++; m->here < 2;)
        sched_yield();
}

static void a_run_does_not_wait_for_who_has_not_come(void **state)
{
    (void)state;
    struct pool *p;
    struct meeting m = {0};
    struct counted c = {.step = 1};
    assert_int_equal(sem_init(&stopped, 0, 0), 0);
    assert_int_equal(sem_init(&go_on, 0, 0), 0);
    signal(SIGUSR1, stop);
    assert_int_equal(pool_create(2, &p), ST_OK);
    pool_for(p, 2, 1, meet, &m);
    assert_int_equal(pthread_kill(m.worker, SIGUSR1), 0);
    assert_int_equal(sem_wait(&stopped), 0);
    alarm(20); /* ends the test if the next line waits for ever */
    for (int i = 0; i < 3; i++)
        pool_for(p, UNITS, 1, count, &c);
    alarm(0);
    for (int i = 0; i < UNITS; i++)
        assert_int_equal(c.times[i], 3);
    sem_post(&go_on);
    pool_destroy(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_piece_is_done_once),
        cmocka_unit_test(one_processor_is_enough),
        cmocka_unit_test(a_run_does_not_wait_for_who_has_not_come),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
