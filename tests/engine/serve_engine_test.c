/* The engine of a server: many jobs at once are what each is alone, and end where they are told to; what they are told
 * besides is true. */
#include "tests/engine/serve_engine.h"

static struct text alone[MANY]; /* what they are alone */

/* ---- a clock that ticks when it is looked at: steps take as long however many drafts they have ---- */

static _Atomic bool still;
static _Atomic long n_looks;

double __real_clock_s(void);
double __wrap_clock_s(void);

double __wrap_clock_s(void) { return still ? 1 + 1e-6 * (double)++n_looks : __real_clock_s(); }

static void jobs_are_what_they_are_alone(void **state)
{
    (void)state;
    enum { N = 16 };
    static const struct {
        int ranks, split;
        uint32_t slots, n_batch, n_sequences;
        bool lookup;
    } ways[] = {
        {1, -1, 24, 64, 16, false}, {1, -1, 24, 64, 16, true}, {1, -1, 4, 256, 3, true},
        {2, SPLIT_SHARDS, 16, 40, 16, true}, {3, SPLIT_STAGES, 24, 32, 8, true},
    };
    make_crowd(alone, N);
    run_alone(alone, N);
    still = true;
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        const struct cluster_options o = options(ways[i].ranks, ways[i].split, ways[i].slots, ways[i].n_batch);
        uint64_t drafts = 0, accepted = 0, made = 0, prompts = 0;
        open_world(&o, ways[i].n_sequences, N, ways[i].lookup);
        make_crowd(texts, N);
        for (int j = 0; j < N; j++)
            submit(&texts[j]);
        run();
        for (int j = 0; j < N; j++) {
            const struct job_usage *u = &texts[j].usage;
            equal_made(&texts[j], &alone[j]);
            assert_int_equal(texts[j].end, alone[j].end);
            assert_int_equal(u->made_tokens, texts[j].n_made);
            assert_int_equal(u->prompt_tokens, texts[j].job.n_prompt);
            assert_true(u->accepted <= u->drafts && u->queued_s >= 0 && u->prompt_s > 0 && u->decode_s >= 0);
            drafts += u->drafts;
            accepted += u->accepted;
            made += u->made_tokens;
            prompts += u->prompt_tokens;
        }
        if (!ways[i].lookup || subject.nets)
            assert_int_equal(drafts, 0);
        else if (ways[i].ranks == 1) /* else it looks at the clock while it waits */
            assert_true(accepted > 0 && accepted < drafts);
        print_message("%d ranks: %lu drafts, %lu of them right, %lu tokens\n", ways[i].ranks, drafts, accepted, made);
        assert_true(w.counts.drafts == drafts && w.counts.accepted == accepted);
        assert_true(w.counts.made_tokens == made && w.counts.prompt_tokens == prompts);
        assert_int_equal(w.counts.ended[JOB_ANSWERED] + w.counts.ended[JOB_LIMIT], N);
        assert_true(w.counts.steps > 0 && w.counts.busy > w.counts.steps);
        close_world();
    }
    still = false;
}

/* Where the answer ends: with the context, with the owner's word, at once. */
static void answers_end_where_they_are_told_to(void **state)
{
    (void)state;
    struct cluster_options o = options(1, -1, 8, 64);
    o.n_ctx = 100;
    open_world(&o, 8, 8, true);
    make(&texts[0], 1, 0, 1, 90)->job.max_tokens = UINT32_MAX;
    make(&texts[1], 1, 0, 2, 30)->stop_at = 3;
    make(&texts[2], 1, 0, 3, 30)->job.max_tokens = 0;
    make(&texts[3], 1, 0, 4, 30)->job.max_tokens = 1;
    make(&texts[4], 1, 0, 5, 101);
    make(&texts[5], 1, 0, 6, 20)->job.sampling.temperature = NAN;
    make(&texts[6], 1, 0, 7, 20)->job.n_top = WIRE_TOP + 1;
    make(&texts[7], 1, 0, 8, 99);
    for (int i = 0; i < 8; i++) {
        texts[i].job.ignore_end = true;
        submit(&texts[i]);
    }
    run();
    static const struct {
        enum job_end end;
        uint32_t n_made;
        const char *why;
    } expected[] = {{JOB_LIMIT, 10, ""}, {JOB_ANSWERED, 3, ""}, {JOB_LIMIT, 0, ""}, {JOB_LIMIT, 1, ""},
                    {JOB_FAILED, 0, "context"}, {JOB_FAILED, 0, "not finite"}, {JOB_FAILED, 0, "best tokens"},
                    {JOB_LIMIT, 1, ""}};
    for (int i = 0; i < 8; i++) {
        assert_int_equal(texts[i].end, expected[i].end);
        assert_int_equal(texts[i].n_made, expected[i].n_made);
        assert_non_null(strstr(texts[i].why, expected[i].why));
    }
    close_world();
}

/* Texts that must give their pages back to others, and run again, are the same; and no chunk of a prompt is told
 * twice. */
static void kv_memory_may_be_short(void **state)
{
    (void)state;
    enum { N = 12 };
    struct cluster_options o = options(1, -1, 12, 64);
    struct cluster *c = start(&o);
    o.kv_budget = 8 * cluster_page_bytes(c);
    cluster_stop(c);
    make_crowd(alone, N);
    run_alone(alone, N);
    open_world(&o, N, N, true);
    make_crowd(texts, N);
    for (int i = 0; i < N; i++)
        submit(&texts[i]);
    run();
    assert_true(session_schedule(cluster_session(w.c)).sent_away > 0);
    for (int i = 0; i < N; i++)
        equal_made(&texts[i], &alone[i]);
    close_world();
}

static void best_tokens_come_with_their_probabilities(void **state)
{
    (void)state;
    const struct cluster_options o = options(1, -1, 4, 64);
    open_world(&o, 4, 4, true);
    make(&texts[0], 1, 0, 1, 20)->job.n_top = 0;
    make(&texts[1], 1, 0, 1, 20)->job.n_top = 3;
    make(&texts[2], 1, 0, 1, 20);
    for (int i = 0; i < 3; i++) {
        texts[i].job.ignore_end = true;
        submit(&texts[i]);
    }
    run();
    for (uint32_t i = 0; i < MOST_MADE; i++) {
        assert_true(texts[0].log_p[i] < 0 && texts[0].log_p[i] == texts[1].log_p[i] && texts[2].log_p[i] == 0);
        assert_int_equal(texts[1].tops[i][0].token, texts[1].made[i]);
        assert_true(texts[1].tops[i][0].log_p == texts[1].log_p[i]);
    }
    assert_int_equal(texts[0].n_tops, 0);
    assert_int_equal(texts[1].n_tops, 3);
    equal_made(&texts[1], &texts[2]);
    close_world();
}

/* What is said of a prompt's tokens. */
static struct said {
    uint32_t n;
    float log_p[MOST_PROMPT];
    struct wire_top tops[MOST_PROMPT][4];
} said[MANY];

static void take_log_probs(struct job *j, uint32_t first, uint32_t n, const float *log_p, const struct wire_top *tops,
                           uint32_t n_top)
{
    struct text *t = j->owner;
    struct said *s = &said[t - texts];
    assert_true(first == s->n + 1 && first + n <= j->n_prompt && t->n_made == 0 && n_top <= 4);
    for (uint32_t i = 0; i < n; i++) {
        s->log_p[first + i] = log_p[i];
        if (n_top)
            memcpy(s->tops[first + i], tops + i * n_top, n_top * sizeof *tops);
    }
    s->n += n;
}

/* A prompt that ends with what was made of its beginning: the same numbers come that came with that. */
static void prompt_is_read_as_it_would_be_made(int ranks)
{
    enum { PROMPT = 100, TOPS = 3, KINDS = 5, ALL = PROMPT + MOST_MADE };
    static const uint32_t tops[KINDS] = {TOPS, TOPS, 0, 1, TOPS}, most[KINDS] = {0, 5, 2, 0, 5};
    static struct text before;
    const struct cluster_options o = options(ranks, SPLIT_STAGES, 8, 24);
    memset(said, 0, sizeof said);
    open_world(&o, 8, 8, true);
    make(&before, 1, 0, 1, PROMPT)->job.n_top = TOPS;
    before.job.ignore_end = true;
    submit(&before);
    run();
    close_world();
    open_world(&o, 8, 8, true);
    for (int i = 0; i < KINDS; i++) {
        struct text *t = make(&texts[i], 1, 0, 1, i < KINDS - 1 ? ALL : 1);
        if (i < KINDS - 1)
            memcpy(t->prompt + PROMPT, before.made, sizeof before.made);
        t->job.n_top = tops[i];
        t->job.max_tokens = most[i];
        t->job.ignore_end = true;
        t->job.log_probs = take_log_probs;
        submit(t);
    }
    run();
    for (int i = 0; i < KINDS; i++) {
        assert_int_equal(texts[i].end, JOB_LIMIT);
        assert_int_equal(texts[i].n_made, most[i]);
        assert_int_equal(texts[i].usage.cached_tokens, 0);
        assert_int_equal(said[i].n, texts[i].job.n_prompt - 1);
        for (uint32_t k = 0; k < MOST_MADE && i < KINDS - 1; k++) {
            assert_memory_equal(&said[i].log_p[PROMPT + k], &before.log_p[k], sizeof(float));
            assert_memory_equal(said[i].tops[PROMPT + k], before.tops[k], tops[i] * sizeof(struct wire_top));
        }
    }
    assert_int_equal(w.counts.prompt_tokens, 4 * ALL + 1);
    close_world();
}

static void a_prompt_is_read_as_it_would_be_made(void **state)
{
    (void)state;
    for (int ranks = 1; ranks <= 2; ranks++)
        prompt_is_read_as_it_would_be_made(ranks);
}

/* What the session alone says of a text's states. */
static void states_alone(struct session *s, const struct text *t, float expected[64])
{
    const struct wish wish = {.kind = t->job.pool == POOL_MEAN ? WISH_SUM : WISH_STATES};
    int64_t sum[64] = {0};
    struct session_event event;
    struct sequence *q;
    assert_int_equal(session_open(s, &q), ST_OK);
    assert_int_equal(session_text(s, q, t->prompt, t->job.n_prompt), ST_OK);
    assert_int_equal(session_submit(s, q, &wish, NULL), ST_OK);
    do {
        assert_int_equal(session_wait(s, &event), ST_OK);
        if (event.kind == WISH_SUM)
            wire_sum_add(sum, event.answer.values, 64);
    } while (!event.over);
    if (event.kind == WISH_SUM)
        wire_sum_mean(sum, 64, t->job.n_prompt, expected);
    else
        memcpy(expected, event.answer.values, 64 * sizeof *expected);
    session_close(s, q);
}

static void states_of_a_text(void **state)
{
    (void)state;
    struct cluster_options o = options(2, SPLIT_STAGES, 8, 16);
    float expected[64];
    open_world(&o, 8, 8, true);
    struct session *s = cluster_session(w.c);
    for (uint32_t i = 0; i < 4; i++) {
        make(&texts[i], 9, 70, i, 71 + i)->job.kind = JOB_STATES;
        submit(&texts[i]);
    }
    make(&texts[4], 9, 70, 0, 71)->job.kind = JOB_STATES;
    texts[4].job.pool = POOL_MEAN;
    submit(&texts[4]);
    make_crowd(&texts[5], 3);
    for (int i = 5; i < 8; i++)
        submit(&texts[i]);
    run();
    for (uint32_t i = 0; i < 5; i++) {
        states_alone(s, &texts[i], expected);
        assert_int_equal(texts[i].end, JOB_ANSWERED);
        assert_int_equal(texts[i].n_states, 64);
        assert_memory_equal(texts[i].states, expected, sizeof expected);
    }
    close_world();
}

/* ---- what is seen meanwhile ---- */

static struct house seen_house;
static void look_at_house(struct text *t)
{
    (void)t;
    if (seen_house.at_s == 0)
        engine_house(w.e, &seen_house);
}

static void the_house_is_asked_while_texts_run(void **state)
{
    (void)state;
    for (int ranks = 1; ranks <= 3; ranks += 2) {
        const struct cluster_options o = options(ranks, SPLIT_SHARDS, 8, 64);
        open_world(&o, 8, 8, true);
        w.on_token = look_at_house;
        seen_house = (struct house){0};
        make_crowd(texts, 8);
        for (int i = 0; i < 8; i++)
            submit(&texts[i]);
        run();
        assert_int_equal(seen_house.n_ranks, ranks);
        assert_true(seen_house.at_s > 0);
        for (int r = 0; r < ranks; r++)
            assert_true(seen_house.ranks[r].n_devices > 0);
        const struct engine_silence silence = engine_silence(w.e);
        assert_true(silence.longest_s > 0 && silence.now_s == 0); /* nothing is to come */
        close_world();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(jobs_are_what_they_are_alone),
        cmocka_unit_test(answers_end_where_they_are_told_to),
        cmocka_unit_test(kv_memory_may_be_short),
        cmocka_unit_test(best_tokens_come_with_their_probabilities),
        cmocka_unit_test(a_prompt_is_read_as_it_would_be_made),
        cmocka_unit_test(states_of_a_text),
        cmocka_unit_test(the_house_is_asked_while_texts_run),
    };
    const struct CMUnitTest of_net[] = {
        cmocka_unit_test(jobs_are_what_they_are_alone),
        cmocka_unit_test(a_prompt_is_read_as_it_would_be_made),
    };
    return cmocka_run_group_tests(tests, write_model, remove_model) + cmocka_run_group_tests(of_net, take_net, NULL);
}
