/* Whoever leaves, and from whatever thread jobs come: the others are what they are alone, and nothing is left
 * behind. */
#include "tests/engine/serve_engine.h"

#include <malloc.h>
#include <pthread.h>
#include <sched.h>

static struct text alone[MANY]; /* what they are alone */

/* Whenever somebody has a fifth token another leaves. */
static uint32_t n_cancelled;
static void cancel_one(struct text *t)
{
    if (t->n_made % 5 == 0 && n_cancelled < 50)
        texts[n_cancelled++].job.cancelled = true;
}

static void fifty_leave_and_nobody_notices(void **state)
{
    (void)state;
    for (int ranks = 1; ranks <= 2; ranks++) {
        const struct cluster_options o = options(ranks, SPLIT_SHARDS, 24, 64);
        make_crowd(alone, MANY);
        run_alone(alone + 50, MANY - 50);
        make_crowd(texts, MANY);
        open_world(&o, 16, MANY, true);
        w.on_token = cancel_one;
        n_cancelled = 0;
        for (int i = 0; i < MANY; i++)
            submit(&texts[i]);
        run();
        uint32_t left = 0;
        for (int i = 0; i < MANY; i++) {
            left += texts[i].end == JOB_CANCELLED;
            if (i >= 50)
                equal_made(&texts[i], &alone[i]);
        }
        assert_true(left >= 25 && left <= 50);
        assert_int_equal(w.counts.ended[JOB_CANCELLED], left);
        close_world();
    }
}

/* ---- threads ---- */

enum { THREADS = 4, EACH = 15 };

/* Submits, waits, cancels some. */
static struct text *threads_texts;
static void *submit_some(void *arg)
{
    struct text *t = &threads_texts[*(const int *)arg * EACH];
    for (int i = 0; i < EACH; i++) {
        struct job *j = &t[i].job;
        while (engine_submit(w.e, &j, 1) == ST_FULL)
            sched_yield();
        if (i % 5 == 4)
            t[i - 1].job.cancelled = true;
        struct house house;
        struct counts counts;
        engine_house(w.e, &house);
        counts_copy(&w.counts, &counts);
    }
    return NULL;
}

static void jobs_come_from_many_threads(void **state)
{
    (void)state;
    static const int numbers[THREADS] = {0, 1, 2, 3};
    pthread_t threads[THREADS];
    const struct cluster_options o = options(2, SPLIT_SHARDS, 8, 32);
    make_crowd(alone, MANY);
    run_alone(alone, MANY);
    make_crowd(texts, MANY);
    open_world(&o, 6, 10, true);
    threads_texts = texts;
    w.n_open = THREADS * EACH;
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, submit_some, (void *)&numbers[i]), 0);
    run();
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(w.n_over, MANY);
    for (int i = 0; i < MANY; i++)
        if (texts[i].end != JOB_CANCELLED)
            equal_made(&texts[i], &alone[i]);
    close_world();
}

/* ---- memory ---- */

static uint32_t n_short, n_short_all;
static size_t bytes_before;

static size_t bytes_in_use(void)
{
    const struct mallinfo2 m = mallinfo2();
    return m.uordblks + m.hblkhd;
}

/* Two chats that never end, on and on. */
static void submit_again(struct text *t)
{
    if (++n_short == n_short_all / 2)
        bytes_before = bytes_in_use();
    if (n_short + w.n_open > n_short_all)
        return;
    const uint64_t own = n_short;
    make(t, own % 5, 20, own, 21 + (uint32_t)(own % 100))->job.max_tokens = 4;
    t->job.key = (uint32_t)own;
    t->job.cancelled = own % 7 == 0;
    submit(t);
}

static void memory_does_not_grow(void **state)
{
    (void)state;
    const char *all = getenv("HEARTH_TEST_JOBS"); /* 10,000 take some seconds */
    const struct cluster_options o = options(2, SPLIT_SHARDS, 12, 64);
    n_short = 0;
    n_short_all = all ? (uint32_t)atoi(all) : SANITIZED ? 100 : 500;
    open_world(&o, 4, 8, true);
    w.on_over = submit_again;
    for (uint32_t i = 0; i < 8; i++) {
        make(&texts[i], i, 0, i, 30)->job.max_tokens = 4;
        submit(&texts[i]);
    }
    run();
    assert_int_equal(n_short, n_short_all);
    if (!SANITIZED)
        assert_true(bytes_in_use() <= bytes_before + 65536);
    close_world();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fifty_leave_and_nobody_notices),
        cmocka_unit_test(jobs_come_from_many_threads),
        cmocka_unit_test(memory_does_not_grow),
    };
    return cmocka_run_group_tests(tests, write_model, remove_model);
}
