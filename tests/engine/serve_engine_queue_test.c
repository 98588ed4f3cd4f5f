/* Who waits at the engine: keys are treated alike, nobody is shut out by another's crowd, a long prompt lets others go
 * on, and a server that stops ends what is left. */
#include "tests/engine/serve_engine.h"

static void a_key_with_one_job_does_not_wait_for_one_with_forty(void **state)
{
    (void)state;
    const struct cluster_options o = options(1, -1, 8, 64);
    open_world(&o, 4, 100, false);
    for (uint32_t i = 0; i < 40; i++) {
        make(&texts[i], 1, 0, i, 20 + i)->job.key = 1;
        texts[i].job.max_tokens = 10;
        submit(&texts[i]);
    }
    make(&texts[40], 1, 0, 40, 30)->job.key = 2;
    submit(&texts[40]);
    run();
    assert_in_range(texts[40].order, 1, 12); /* of 41 ends: it is begun within 4 turns, which end, and 4 run beside
                                              * it */
    close_world();
}

static void submit_late(struct text *t)
{
    if (t == &texts[9] && t->n_made == 1)
        submit(&texts[40]);
}

static void a_key_that_comes_late_is_next(void **state)
{
    (void)state;
    const struct cluster_options o = options(1, -1, 8, 64);
    open_world(&o, 4, 100, false);
    w.on_token = submit_late;
    for (uint32_t i = 0; i < 40; i++) {
        make(&texts[i], 1, 0, i, 20)->job.key = 1;
        texts[i].job.max_tokens = 6;
        submit(&texts[i]);
    }
    make(&texts[40], 1, 0, 40, 30)->job.key = 2;
    texts[40].job.max_tokens = 6;
    run();
    assert_true(texts[40].order <= texts[9].order + 8);
    close_world();
}

static void leave_at_first_chunk(struct job *j, uint32_t done)
{
    (void)done;
    j->cancelled = true;
}

/* A long prompt of which a chunk has run, and one that is too long, cost what ran: who sent them has not had his turn
 * for long. */
static void what_never_ran_is_not_paid(void **state)
{
    (void)state;
    const struct cluster_options o = options(1, -1, 4, 16);
    open_world(&o, 1, 100, false);
    make(&texts[0], 1, 0, 0, 400)->job.progress = leave_at_first_chunk;
    make(&texts[1], 1, 0, 1, 20)->job.n_prompt = CONTEXT + 1; /* of which no token is read */
    for (uint32_t i = 2; i < 20; i++)
        make(&texts[i], 1, 0, i, 20)->job.max_tokens = 6;
    for (uint32_t i = 0; i < 20; i++) {
        texts[i].job.key = i < 3 ? 1 : 2;
        submit(&texts[i]);
    }
    run();
    assert_int_equal(texts[0].end, JOB_CANCELLED);
    assert_int_equal(texts[1].end, JOB_FAILED);
    assert_in_range(texts[2].order, 3, 8); /* of 20 */
    close_world();
}

static void a_full_queue_takes_nobody(void **state)
{
    (void)state;
    const struct cluster_options o = options(1, -1, 4, 64);
    struct job *more[2] = {&texts[5].job, &texts[6].job};
    open_world(&o, 2, 4, false);
    for (uint32_t i = 0; i < 7; i++)
        make(&texts[i], 1, 0, i, 20)->job.max_tokens = 3;
    for (int i = 0; i < 5; i++)
        submit(&texts[i]);
    assert_int_equal(engine_submit(w.e, more, 2), ST_FULL); /* all or none */
    submit(&texts[5]);
    assert_int_equal(engine_submit(w.e, &more[1], 1), ST_FULL);
    run();
    assert_int_equal(w.counts.refused, 3);
    assert_int_equal(w.n_over, 6);
    assert_int_equal(texts[6].order, 0);
    assert_int_equal(engine_submit(w.e, &more[1], 1), ST_PEER); /* it has stopped */
    close_world();
}

/* As many as can run find room beside another's crowd, until there are twice as many as may wait. */
static void a_crowd_of_one_key_shuts_no_other_out(void **state)
{
    (void)state;
    static const uint32_t key[] = {1, 1, 1, 1, 1, 1, /* all that there is room for */ 1, 2, 2, 2, 3, 3, 4};
    static const bool fits[] = {true, true, true, true, true, true, false, true, true, false, true, true, false};
    const struct cluster_options o = options(1, -1, 4, 64);
    open_world(&o, 2, 4, false);
    for (uint32_t i = 0; i < sizeof key / sizeof *key; i++) {
        struct job *j = &make(&texts[i], 1, 0, i, 20)->job;
        j->key = key[i];
        j->max_tokens = 3;
        assert_int_equal(engine_submit(w.e, &j, 1), fits[i] ? ST_OK : ST_FULL);
        w.n_open += fits[i];
    }
    run();
    assert_int_equal(w.n_over, 10);
    close_world();
}

static double drain_s;
static void stop_now(struct text *t)
{
    struct job *more = &texts[50].job;
    if (t != &texts[0] || t->n_made != 3)
        return;
    engine_stop(w.e, drain_s);
    engine_stop(w.e, 200); /* the earlier end counts */
    assert_int_equal(engine_submit(w.e, &more, 1), ST_PEER);
}

static void a_server_that_stops_ends_its_jobs(void **state)
{
    (void)state;
    const struct cluster_options o = options(1, -1, 8, 64);
    for (drain_s = 0; drain_s <= 100; drain_s += 100) {
        open_world(&o, 4, 100, false);
        w.on_token = stop_now;
        make_crowd(texts, 20);
        for (int i = 0; i < 20; i++) {
            texts[i].job.ignore_end = true;
            submit(&texts[i]);
        }
        run();
        assert_int_equal(w.n_over, 20);
        for (int i = 0; i < 20; i++) {
            assert_int_equal(texts[i].end, drain_s > 0 ? JOB_LIMIT : JOB_FAILED);
            assert_non_null(strstr(texts[i].why, drain_s > 0 ? "" : "stops"));
        }
        close_world();
    }
}

static uint32_t tokens_between, chunks_seen;
static void count_between(struct text *t)
{
    tokens_between += t == &texts[0];
    if (t == &texts[0] && t->n_made == 2)
        submit(&texts[1]);
}

static void chunk_ran(struct job *j, uint32_t done)
{
    take_progress(j, done);
    assert_true(chunks_seen++ == 0 || tokens_between > 0);
    tokens_between = 0;
}

static void a_long_prompt_lets_a_running_text_have_a_token_a_chunk(void **state)
{
    (void)state;
    for (int ranks = 1; ranks <= 2; ranks++) {
        const struct cluster_options o = options(ranks, SPLIT_SHARDS, 4, 16);
        open_world(&o, 4, 4, false);
        w.on_token = count_between;
        chunks_seen = tokens_between = 0;
        make(&texts[0], 1, 0, 1, 10)->job.ignore_end = true;
        make(&texts[1], 1, 0, 2, 400)->job.progress = chunk_ran;
        submit(&texts[0]);
        run();
        assert_in_range(chunks_seen, 400 / 16, 400 / 15 + 1);
        close_world();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_key_with_one_job_does_not_wait_for_one_with_forty),
        cmocka_unit_test(a_key_that_comes_late_is_next),
        cmocka_unit_test(what_never_ran_is_not_paid),
        cmocka_unit_test(a_full_queue_takes_nobody),
        cmocka_unit_test(a_crowd_of_one_key_shuts_no_other_out),
        cmocka_unit_test(a_server_that_stops_ends_its_jobs),
        cmocka_unit_test(a_long_prompt_lets_a_running_text_have_a_token_a_chunk),
    };
    return cmocka_run_group_tests(tests, write_model, remove_model);
}
