/* What the engine keeps of texts that are over: whoever begins as they did goes on where they were. */
#include "tests/engine/serve_engine.h"

static struct text alone[MANY]; /* what they are alone */

/* The next turn of a chat: what was said, and more. */
static void follow_up(struct text *t)
{
    struct text *next = t + 1;
    if (t >= &texts[3])
        return;
    make(next, 1, 0, (uint64_t)(t - texts), t->job.n_prompt + t->n_made + 30);
    memcpy(next->prompt, t->prompt, t->job.n_prompt * sizeof *t->prompt);
    memcpy(next->prompt + t->job.n_prompt, t->made, t->n_made * sizeof *t->made);
    next->job.max_tokens = 20;
    next->job.ignore_end = true;
    submit(next);
}

static void a_chat_goes_on_where_it_was(void **state)
{
    (void)state;
    for (int lookup = 0; lookup < 2; lookup++) {
        const struct cluster_options o = options(1, -1, 8, 64);
        open_world(&o, 4, 8, lookup);
        w.on_over = follow_up;
        make(&texts[0], 1, 0, 50, 150)->job.max_tokens = 20;
        texts[0].job.ignore_end = true;
        submit(&texts[0]);
        run();
        assert_int_equal(texts[0].usage.cached_tokens, 0);
        for (int i = 1; i < 4; i++) { /* all but the last token, which was told but did not run */
            assert_int_equal(texts[i].usage.cached_tokens, texts[i - 1].job.n_prompt + 19);
            alone[i] = texts[i];
            alone[i].n_made = 0;
        }
        assert_int_equal(w.counts.cached_tokens, 169 + 219 + 269);
        close_world();
        run_alone(alone + 1, 3);
        for (int i = 1; i < 4; i++)
            equal_made(&texts[i], &alone[i]);
    }
}

/* Also for those who come together. */
static void a_beginning_runs_once(void **state)
{
    (void)state;
    enum { N = 8, COMMON = 256 };
    for (int ranks = 1; ranks <= 2; ranks++) {
        const struct cluster_options o = options(ranks, SPLIT_STAGES, 16, 48);
        struct job *together[N];
        uint32_t cached = 0;
        open_world(&o, N, N, true);
        for (uint32_t i = 0; i < N; i++) {
            make(&texts[i], 7, COMMON, i, COMMON + 10 + i)->job.max_tokens = 5;
            alone[i] = texts[i];
            together[i] = &texts[i].job;
        }
        assert_int_equal(engine_submit(w.e, together, N), ST_OK);
        w.n_open = N;
        run();
        for (int i = 0; i < N; i++)
            cached += texts[i].usage.cached_tokens;
        assert_int_equal(cached, (N - 1) * COMMON);
        close_world();
        run_alone(alone, N);
        for (int i = 0; i < N; i++)
            equal_made(&texts[i], &alone[i]);
    }
}

static void submit_next(struct text *t)
{
    if (t < &texts[19])
        submit(t + 1);
}

/* Sequences that are kept give way, the oldest first: a system prompt that all have stays. */
static void what_all_begin_with_stays(void **state)
{
    (void)state;
    struct cluster_options o = options(1, -1, 4, 64);
    struct cluster *c = start(&o);
    o.kv_budget = 10 * cluster_page_bytes(c);
    cluster_stop(c);
    open_world(&o, 2, 8, true);
    w.on_over = submit_next;
    for (uint32_t i = 0; i < 20; i++)
        make(&texts[i], 3, 128, i, 200 + i)->job.max_tokens = 5;
    submit(&texts[0]);
    run();
    for (int i = 1; i < 20; i++)
        assert_int_equal(texts[i].usage.cached_tokens, 128);
    close_world();
}

/* Where there is no slot but for those that run, a new text sends the oldest away: not the one that it begins with. */
static void the_oldest_is_gone_on_with_before_it_leaves(void **state)
{
    (void)state;
    const struct cluster_options o = options(1, -1, 4, 64);
    open_world(&o, 4, 8, false);
    w.on_over = submit_next;
    for (uint32_t i = 0; i < 20; i++) {
        make(&texts[i], 1, 0, i % 4, 100 + i % 4)->job.max_tokens = 30;
        texts[i].job.ignore_end = true;
    }
    submit(&texts[0]);
    run();
    for (uint32_t i = 4; i < 20; i++)
        assert_int_equal(texts[i].usage.cached_tokens, texts[i].job.n_prompt - 1);
    close_world();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_chat_goes_on_where_it_was),
        cmocka_unit_test(a_beginning_runs_once),
        cmocka_unit_test(what_all_begin_with_stays),
        cmocka_unit_test(the_oldest_is_gone_on_with_before_it_leaves),
    };
    const struct CMUnitTest of_net[] = {cmocka_unit_test(a_chat_goes_on_where_it_was)};
    return cmocka_run_group_tests(tests, write_model, remove_model) + cmocka_run_group_tests(of_net, take_net, NULL);
}
