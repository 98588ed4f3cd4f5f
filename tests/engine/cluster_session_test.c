/* What a dialogue promises, on one rank and on several: truncation, chunks, a full context, wrong tokens, scores,
 * seeds; and what cluster_start refuses. */
#include "tests/engine/made_model.h"

#include "base/log.h"

enum { PROMPT = 40, CONTEXT = 64 };

static char model_path[MADE_NAME];
static int32_t prompt[PROMPT];

static int write_model(void **state)
{
    (void)state;
    uint64_t random = 5;
    for (int i = 0; i < PROMPT; i++)
        prompt[i] = (int32_t)(made_draw(&random) % MADE_VOCABULARY);
    made_model_write(&made_quantised, model_path);
    return 0;
}

static int remove_model(void **state)
{
    (void)state;
    return unlink(model_path);
}

/* The clusters that every test runs on. */
static bool options_at(int i, struct cluster_options *o)
{
    *o = plain_options(model_path);
    o->n_ctx = CONTEXT;
    o->ranks = 1 + i;
    o->split = (int[]){SPLIT_SHARDS, SPLIT_BOTH, SPLIT_STAGES}[i % 3];
    o->n_batch = (uint32_t[]){16, 7, 64}[i % 3];
    return i < 3;
}

static void logits_of(struct dialogue *d, const int32_t *tokens, size_t n, float *out)
{
    assert_int_equal(dialogue_logits(d, tokens, n, out), ST_OK);
}

static void equal_logits(const float *a, const float *b)
{
    assert_memory_equal(a, b, MADE_VOCABULARY * sizeof *a);
}

/* However a text is cut, and whatever was there before, its logits are the same. */
static void test_chunks_and_truncation(void **state)
{
    (void)state;
    struct cluster_options o;
    for (int i = 0; options_at(i, &o); i++) {
        float whole[MADE_VOCABULARY], found[MADE_VOCABULARY];
        struct cluster *c = start(&o);
        struct dialogue *d = cluster_dialogue(c);
        logits_of(d, prompt, PROMPT, whole);
        for (size_t cut = 1; cut < PROMPT; cut += 6) {
            dialogue_truncate(d, 0);
            assert_int_equal(dialogue_length(d), 0);
            assert_int_equal(dialogue_prompt(d, prompt, cut, NULL, NULL, NULL), ST_OK);
            assert_int_equal(dialogue_length(d), cut);
            logits_of(d, prompt + cut, PROMPT - cut, found);
            equal_logits(whole, found);
        }
        static const int32_t other[] = {9, 8, 7, 6, 5, 4, 3};
        for (size_t keep = 0; keep < PROMPT; keep += 13) {
            dialogue_truncate(d, keep);
            assert_int_equal(dialogue_prompt(d, other, 7, NULL, NULL, NULL), ST_OK);
            dialogue_truncate(d, keep);
            dialogue_truncate(d, PROMPT); /* longer than it is: nothing happens */
            assert_int_equal(dialogue_length(d), keep);
            logits_of(d, prompt + keep, PROMPT - keep, found);
            equal_logits(whole, found);
        }
        cluster_stop(c);
    }
}

static void test_full_context(void **state)
{
    (void)state;
    struct cluster_options o;
    for (int i = 0; options_at(i, &o); i++) {
        float before[MADE_VOCABULARY], found[MADE_VOCABULARY];
        struct log_catcher caught;
        struct cluster *c = start(&o);
        struct dialogue *d = cluster_dialogue(c);
        int32_t next = -7;
        assert_int_equal(cluster_context(c), CONTEXT);
        logits_of(d, prompt, PROMPT, before);
        log_catch(&caught);
        assert_int_equal(dialogue_prompt(d, prompt, CONTEXT - PROMPT + 1, &next, NULL, NULL), ST_FULL);
        assert_true(strstr(caught.first_error, "context") != NULL);
        log_catch(NULL);
        assert_int_equal(next, -7);
        assert_int_equal(dialogue_length(d), PROMPT);
        assert_int_equal(dialogue_prompt(d, prompt, CONTEXT - PROMPT, &next, NULL, NULL), ST_OK); /* just full */
        assert_int_equal(dialogue_length(d), CONTEXT);
        log_catch(&caught);
        assert_int_equal(dialogue_next(d, 5, &next), ST_FULL);
        log_catch(NULL);
        dialogue_truncate(d, PROMPT - 1);
        logits_of(d, prompt + PROMPT - 1, 1, found);
        equal_logits(before, found);
        cluster_stop(c);
    }
}

static void test_wrong_tokens(void **state)
{
    (void)state;
    static const int32_t wrong[] = {-1, MADE_VOCABULARY, INT32_MAX, INT32_MIN};
    struct cluster_options o;
    for (int i = 0; options_at(i, &o); i++) {
        float before[MADE_VOCABULARY], found[MADE_VOCABULARY], nll[PROMPT];
        struct log_catcher caught;
        struct cluster *c = start(&o);
        struct dialogue *d = cluster_dialogue(c);
        int32_t next, tokens[PROMPT];
        logits_of(d, prompt, PROMPT, before);
        log_catch(&caught);
        for (size_t j = 0; j < sizeof wrong / sizeof *wrong; j++) {
            memcpy(tokens, prompt, sizeof prompt);
            tokens[20] = wrong[j];
            assert_int_equal(dialogue_next(d, wrong[j], &next), ST_USAGE);
            assert_int_equal(dialogue_prompt(d, tokens, 22, &next, NULL, NULL), ST_USAGE);
            assert_int_equal(dialogue_logits(d, tokens, 21, found), ST_USAGE);
            assert_int_equal(dialogue_length(d), PROMPT);
        }
        assert_int_equal(dialogue_prompt(d, prompt, 0, &next, NULL, NULL), ST_USAGE);
        log_catch(NULL);
        dialogue_truncate(d, PROMPT - 3);
        logits_of(d, prompt + PROMPT - 3, 3, found);
        equal_logits(before, found);
        log_catch(&caught);
        tokens[PROMPT - 1] = wrong[0];
        assert_int_equal(dialogue_score(d, tokens, PROMPT, 0, nll), ST_USAGE);
        log_catch(NULL);
        assert_int_equal(dialogue_prompt(d, prompt, 3, &next, NULL, NULL), ST_OK);
        cluster_stop(c);
    }
}

/* -log p(token), in double precision. */
static double surprise(const float *logits, int32_t token)
{
    double top = logits[largest(logits, MADE_VOCABULARY)], sum = 0;
    for (int i = 0; i < MADE_VOCABULARY; i++)
        sum += exp(logits[i] - top);
    return top + log(sum) - logits[token];
}

static void test_scores(void **state)
{
    (void)state;
    struct cluster_options o;
    float first[PROMPT];
    for (int i = 0; options_at(i, &o); i++) {
        float nll[PROMPT], logits[MADE_VOCABULARY];
        struct cluster *c = start(&o);
        struct dialogue *d = cluster_dialogue(c);
        for (size_t from = 0; from < PROMPT - 1; from += 9) {
            size_t n = PROMPT - 1 - from;
            for (size_t j = 0; j < PROMPT; j++)
                nll[j] = -1;
            assert_int_equal(dialogue_score(d, prompt, PROMPT, from, nll), ST_OK);
            assert_true(nll[n] == -1); /* no more than asked for */
            if (i == 0 && from == 0)
                memcpy(first, nll, sizeof first);
            assert_memory_equal(nll, first + from, n * sizeof *nll); /* the same on any cluster, from anywhere */
        }
        dialogue_truncate(d, 0);
        for (int j = 0; j + 1 < PROMPT; j++) {
            logits_of(d, prompt + j, 1, logits);
            double expected = surprise(logits, prompt[j + 1]);
            assert_true(fabs(first[j] - expected) <= 1e-5 * (1 + expected));
        }
        assert_int_equal(dialogue_score(d, prompt, PROMPT, PROMPT - 1, nll), ST_OK); /* nothing to score */
        assert_int_equal(dialogue_score(d, prompt, 1, 0, nll), ST_OK);
        cluster_stop(c);
    }
}

/* A seed's text, on every cluster; another seed's is another. */
static void test_sampling(void **state)
{
    (void)state;
    enum { NEW = 20 };
    struct sampler_params p = {.temperature = 1.5f, .top_k = 40, .top_p = 0.95f, .repeat_penalty = 1.1f,
                               .presence_penalty = 0.3f, .frequency_penalty = 0.2f,
                               .repeat_last = 16};
    int32_t first[2][NEW], text[NEW];
    struct cluster_options o;
    for (int i = 0; options_at(i, &o); i++) {
        struct cluster *c = start(&o);
        struct dialogue *d = cluster_dialogue(c);
        for (int round = 0; round < 4; round++) {
            p.seed = 100 + (uint64_t)(round % 2);
            dialogue_truncate(d, 0);
            assert_int_equal(dialogue_sampling(d, &p), ST_OK);
            assert_int_equal(dialogue_prompt(d, prompt, PROMPT, &text[0], NULL, NULL), ST_OK);
            for (int j = 1; j < NEW; j++)
                assert_int_equal(dialogue_next(d, text[j - 1], &text[j]), ST_OK);
            if (i == 0 && round < 2)
                memcpy(first[round], text, sizeof text);
            assert_memory_equal(text, first[round % 2], sizeof text);
        }
        cluster_stop(c);
    }
    assert_memory_not_equal(first[0], first[1], sizeof text);
}

/* Appends tokens[n] and draws as many as fit `out`. */
static void draw(struct dialogue *d, const int32_t *tokens, size_t n, int32_t *out, size_t n_out)
{
    assert_int_equal(dialogue_prompt(d, tokens, n, &out[0], NULL, NULL), ST_OK);
    for (size_t i = 1; i < n_out; i++)
        assert_int_equal(dialogue_next(d, out[i - 1], &out[i]), ST_OK);
}

/* What is drawn after a text, under a penalty on what it holds, depends on the text alone: not on how much was drawn
 * and cut off before, on when the parameters were set, or on whether the tokens were scored or run. */
static void test_penalty_after_truncation(void **state)
{
    (void)state;
    enum { KEEP = 12, MORE = 5, NEW = 8 };
    static const int32_t windows[] = {6, 64, -1};
    struct cluster_options o;
    for (int i = 0; options_at(i, &o); i++) {
        for (size_t j = 0; j < sizeof windows / sizeof *windows; j++) {
            const struct sampler_params p = {.temperature = 1.5f, .top_p = 1, .repeat_penalty = 8,
                                             .repeat_last = windows[j], .seed = 5};
            int32_t fresh[NEW], found[NEW];
            float nll[PROMPT];
            struct cluster *c = start(&o);
            assert_int_equal(dialogue_sampling(cluster_dialogue(c), &p), ST_OK);
            draw(cluster_dialogue(c), prompt, KEEP + MORE, fresh, NEW);
            cluster_stop(c);

            c = start(&o);
            struct dialogue *d = cluster_dialogue(c);
            assert_int_equal(dialogue_sampling(d, &p), ST_OK);
            draw(d, prompt, PROMPT, found, NEW);
            for (size_t keep = KEEP; keep < KEEP + MORE; keep += 3) {
                dialogue_truncate(d, keep);
                draw(d, prompt + keep, KEEP + MORE - keep, found, NEW);
                assert_memory_equal(found, fresh, sizeof fresh);
            }
            assert_int_equal(dialogue_score(d, prompt, PROMPT, 3, nll), ST_OK);
            dialogue_truncate(d, KEEP);
            draw(d, prompt + KEEP, MORE, found, NEW);
            assert_memory_equal(found, fresh, sizeof fresh);
            dialogue_truncate(d, KEEP);
            assert_int_equal(dialogue_sampling(d, &sampler_greedy), ST_OK);
            assert_int_equal(dialogue_sampling(d, &p), ST_OK);
            draw(d, prompt + KEEP, MORE, found, NEW);
            assert_memory_equal(found, fresh, sizeof fresh);
            cluster_stop(c);
        }
    }
}

/* The work of all ranks is counted once, whatever the plan and however a text is cut; dense and exact. */
static void test_counts(void **state)
{
    (void)state;
    const uint64_t neurons = (uint64_t)made_quantised.layers * made_quantised.d_ff;
    uint64_t live = 0;
    struct cluster_options o;
    for (int i = 0; i < 12; i++) {
        float logits[MADE_VOCABULARY], nll[PROMPT];
        options_at(i % 3, &o);
        o.activation = "relu";
        o.sparse = i % 2 ? SPARSE_EXACT : SPARSE_DENSE;
        o.down_at_stage = i >= 6;
        struct cluster *c = start(&o);
        struct dialogue *d = cluster_dialogue(c);
        struct wire_counts counts = session_counts(cluster_session(c));
        assert_true(counts.bytes == 0 && counts.neurons == 0 && counts.flagged == 0 && counts.live == 0);
        logits_of(d, prompt, PROMPT, logits);
        counts = session_counts(cluster_session(c));
        assert_true(counts.neurons == neurons * PROMPT && counts.bytes > 0);
        if (o.sparse == SPARSE_DENSE) {
            assert_true(counts.flagged == counts.neurons && counts.live == counts.neurons);
        } else {
            live = live ? live : counts.live;
            assert_true(counts.live == live && counts.flagged == live); /* the gates alone decide */
            assert_true(live > counts.neurons / 4 && live < 3 * counts.neurons / 4);
        }
        const uint64_t bytes = counts.bytes;
        dialogue_truncate(d, 0); /* what was done is not undone */
        assert_int_equal(dialogue_score(d, prompt, PROMPT, 0, nll), ST_OK);
        counts = session_counts(cluster_session(c));
        assert_true(counts.neurons == neurons * (2 * PROMPT - 1) && counts.bytes > bytes);
        session_reset_counts(cluster_session(c));
        counts = session_counts(cluster_session(c));
        assert_true(counts.bytes == 0 && counts.neurons == 0 && counts.flagged == 0 && counts.live == 0);
        cluster_stop(c);
    }
}

static uint64_t progress_done, progress_total, progress_calls;

static void note_progress(void *arg, const char *what, uint64_t done, uint64_t total)
{
    assert_true(arg == &progress_calls);
    assert_non_null(what);
    assert_true(done > progress_done && done <= total);
    progress_done = done;
    progress_total = total;
    progress_calls++;
}

static void test_progress(void **state)
{
    (void)state;
    struct cluster_options o;
    options_at(1, &o);
    struct cluster *c = start(&o);
    int32_t next;
    progress_done = progress_calls = 0;
    assert_int_equal(dialogue_prompt(cluster_dialogue(c), prompt, PROMPT, &next, note_progress, &progress_calls),
                     ST_OK);
    assert_int_equal(progress_calls, (PROMPT + 6) / 7);
    assert_int_equal(progress_done, PROMPT);
    assert_int_equal(progress_total, PROMPT);
    cluster_stop(c);
}

/* ---- what cluster_start refuses: with one line, and every rank gone ---- */

static void refused(const struct cluster_options *o, status expected, const char *part_of_line)
{
    struct cluster *c = (struct cluster *)model_path;
    struct log_catcher caught;
    log_catch(&caught);
    status st = cluster_start(o, &c);
    log_catch(NULL);
    assert_int_equal(st, expected);
    assert_ptr_equal(c, model_path); /* set on success only */
    if (!strstr(caught.first_error, part_of_line))
        fail_msg("expected a line with '%s', found '%s'", part_of_line, caught.first_error);
}

static void test_refused(void **state)
{
    (void)state;
    char plan[MADE_NAME];
    made_file_of("{}", 2, plan);
    for (int ranks = 1; ranks <= 3; ranks++) {
        struct cluster_options good = plain_options(model_path), o = good;
        good.ranks = ranks;
        o = good, o.model = "/nowhere/model.gguf", refused(&o, ST_IO, "/nowhere/model.gguf");
        o = good, o.model = plan, refused(&o, ST_FORMAT, plan);
        o = good, o.plan = plan, refused(&o, ST_FORMAT, plan);
        o = good, o.plan = "/nowhere/plan", refused(&o, ST_IO, "/nowhere/plan");
        o = good, o.kernels = "abacus", refused(&o, ST_USAGE, "abacus");
        o = good, o.shares = "1,2,3,4", refused(&o, ST_USAGE, "shares");
        o = good, o.ram_budget = 4096, refused(&o, ST_BUDGET, "budget");
        o = good, o.n_ctx = 1u << 31, o.ram_budget = 1 << 30, refused(&o, ST_BUDGET, "budget");
    }
    struct cluster_options o = plain_options(model_path);
    o.ranks = PLAN_MAX_RANKS + 1, refused(&o, ST_USAGE, "--ranks");
    cluster_stop(NULL);
    unlink(plan);
}

/* A batch larger than the context, no context given, a cluster that is never used. */
static void test_defaults(void **state)
{
    (void)state;
    struct cluster_options o;
    options_at(1, &o);
    o.n_batch = 4096;
    cluster_stop(start(&o));
    o.n_ctx = 0;
    o.split = -1;
    struct cluster *c = start(&o);
    assert_int_equal(cluster_context(c), 512); /* what the model was trained for */
    assert_int_equal(cluster_ranks(c), 2);
    assert_int_equal(tokenizer_n_vocab(cluster_tokenizer(c)), MADE_VOCABULARY);
    cluster_stop(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chunks_and_truncation),
        cmocka_unit_test(test_full_context),
        cmocka_unit_test(test_wrong_tokens),
        cmocka_unit_test(test_scores),
        cmocka_unit_test(test_sampling),
        cmocka_unit_test(test_penalty_after_truncation),
        cmocka_unit_test(test_counts),
        cmocka_unit_test(test_progress),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_defaults),
    };
    return cmocka_run_group_tests(tests, write_model, remove_model);
}
