/* The engine against llama.cpp: what tests/vectors/make_vectors.py has recorded of the tiny models and of SmolLM2. */
#include "tests/engine/engine.h"

#include <math.h>

/* ---- the tiny models: every weight type and every architecture ---- */

struct tiny {
    const char *file;
    struct cluster *cluster;
    struct dialogue *dialogue;
    int32_t *prompt;
    size_t n_prompt, n_vocab;
    double tolerance; /* of a logit */
    double worst;     /* difference found */
    float *logits;    /* [n_vocab] */
};

static json_t *step_field(const json_t *step, const char *name)
{
    json_t *value = json_object_get(step, name);
    assert_non_null(value);
    return value;
}

static void close_to(struct tiny *t, size_t position, size_t token, double expected)
{
    double difference = fabs(t->logits[token] - expected);
    if (!(difference <= t->tolerance))
        fail_msg("%s, position %zu, token %zu: logit %.4f, llama.cpp's is %.4f, tolerance %.4f", t->file, position,
                 token, t->logits[token], expected, t->tolerance);
    t->worst = difference > t->worst ? difference : t->worst;
}

static void compare_row(struct tiny *t, const json_t *row)
{
    const json_t *values = step_field(row, "values");
    assert_int_equal(json_array_size(values), t->n_vocab);
    for (size_t i = 0; i < t->n_vocab; i++)
        close_to(t, (size_t)json_integer_value(step_field(row, "position")), i,
                 json_number_value(json_array_get(values, i)));
}

/* The recorded rows of the prompt: fed up to each of them, and on from there. */
static void compare_prompt(struct tiny *t, const json_t *rows)
{
    size_t i;
    json_t *row;
    json_array_foreach(rows, i, row) {
        size_t position = (size_t)json_integer_value(step_field(row, "position")), at = dialogue_length(t->dialogue);
        if (position >= t->n_prompt)
            continue;
        assert_int_equal(dialogue_logits(t->dialogue, t->prompt + at, position + 1 - at, t->logits), ST_OK);
        compare_row(t, row);
    }
    assert_int_equal(dialogue_length(t->dialogue), t->n_prompt);
}

/* Whether two candidates of llama.cpp lie so close that a right implementation may take the second. */
static bool undecided(const struct tiny *t, const json_t *step)
{
    return json_number_value(step_field(step, "logit")) - json_number_value(step_field(step, "second_logit")) <=
           t->tolerance;
}

/* Along the recorded tokens. */
static void compare_greedy(struct tiny *t, const json_t *greedy)
{
    size_t i;
    json_t *step;
    json_array_foreach(greedy, i, step) {
        int32_t token = (int32_t)json_integer_value(step_field(step, "token"));
        int32_t second = (int32_t)json_integer_value(step_field(step, "second"));
        int32_t best = largest(t->logits, t->n_vocab);
        close_to(t, t->n_prompt + i, (size_t)token, json_number_value(step_field(step, "logit")));
        close_to(t, t->n_prompt + i, (size_t)second, json_number_value(step_field(step, "second_logit")));
        if (best != token && !(best == second && undecided(t, step)))
            fail_msg("%s: greedy token %zu is %d, llama.cpp's is %d", t->file, i, best, token);
        assert_int_equal(dialogue_logits(t->dialogue, &token, 1, t->logits), ST_OK);
    }
}

/* As a user runs it, until the texts part. */
static void run_greedy(struct tiny *t, const json_t *greedy)
{
    int32_t token;
    dialogue_truncate(t->dialogue, 0);
    assert_int_equal(dialogue_prompt(t->dialogue, t->prompt, t->n_prompt, &token, NULL, NULL), ST_OK);
    size_t i;
    json_t *step;
    json_array_foreach(greedy, i, step) {
        if (token != json_integer_value(step_field(step, "token"))) {
            assert_true(undecided(t, step));
            return;
        }
        assert_int_equal(dialogue_next(t->dialogue, token, &token), ST_OK);
    }
}

static void test_tiny_models(void **state)
{
    (void)state;
    json_t *models = read_vectors("tiny.json"), *entry;
    size_t i;
    json_array_foreach(models, i, entry) {
        struct tiny t = {.file = json_string_value(step_field(entry, "file"))};
        char path[512];
        snprintf(path, sizeof path, TEST_DATA "/%s", t.file);
        struct cluster_options o = plain_options(path);
        t.cluster = start(&o);
        t.dialogue = cluster_dialogue(t.cluster);
        t.n_vocab = vocabulary(t.cluster);
        t.prompt = integers(step_field(entry, "prompt"), &t.n_prompt);
        /* Both are off by about `error` from exact arithmetic. */
        t.tolerance = 2 * json_number_value(step_field(entry, "error")) + 0.02;
        t.logits = malloc(t.n_vocab * sizeof *t.logits);
        assert_non_null(t.logits);
        json_t *rows = step_field(entry, "logits"), *greedy = step_field(entry, "greedy");
        compare_prompt(&t, rows);
        compare_greedy(&t, greedy);
        compare_row(&t, json_array_get(rows, json_array_size(rows) - 1));
        run_greedy(&t, greedy);
        print_message("%s: largest difference %.4f, tolerance %.4f\n", t.file, t.worst, t.tolerance);
        cluster_stop(t.cluster);
        free(t.prompt);
        free(t.logits);
    }
    for (int m = 0; tiny_model(m); m++)
        assert_true(m < (int)i); /* each has vectors */
    json_decref(models);
}

/* ---- SmolLM2 ---- */

struct large {
    struct cluster *cluster;
    struct dialogue *dialogue;
    size_t n_vocab;
    float *logits; /* [n_vocab] */
    double squares; /* of margin differences */
    size_t n_margins;
};

/* A recorded step: [token, logit, second token, second logit]. */
struct recorded {
    int32_t token, second;
    double logit, second_logit;
};

static struct recorded recorded_step(const json_t *step)
{
    return (struct recorded){.token = (int32_t)json_integer_value(json_array_get(step, 0)),
                             .logit = json_number_value(json_array_get(step, 1)),
                             .second = (int32_t)json_integer_value(json_array_get(step, 2)),
                             .second_logit = json_number_value(json_array_get(step, 3))};
}

/* The prompt's ids, which must be llama.cpp's. */
static int32_t *encode(struct large *l, const json_t *entry, size_t *n)
{
    const json_t *text = json_object_get(entry, "text");
    int32_t *ids, *expected = integers(json_object_get(entry, "ids"), n);
    size_t n_ids;
    assert_int_equal(tokenizer_encode(cluster_tokenizer(l->cluster), json_string_value(text), json_string_length(text),
                                      true, json_is_true(json_object_get(entry, "special")), &ids, &n_ids), ST_OK);
    assert_int_equal(n_ids, *n);
    assert_memory_equal(ids, expected, n_ids * sizeof *ids);
    free(expected);
    return ids;
}

/* The greedy continuation; returns whether all of it is llama.cpp's. */
static bool continues_alike(struct large *l, const int32_t *ids, size_t n, const json_t *steps)
{
    int32_t token;
    dialogue_truncate(l->dialogue, 0);
    assert_int_equal(dialogue_prompt(l->dialogue, ids, n, &token, NULL, NULL), ST_OK);
    size_t i;
    json_t *step;
    json_array_foreach(steps, i, step) {
        struct recorded r = recorded_step(step);
        if (token != r.token) {
            print_message("parts at token %zu of %zu, where llama.cpp's margin is %.3f\n", i, json_array_size(steps),
                          r.logit - r.second_logit);
            assert_true(r.logit - r.second_logit <= 0.05);
            return false;
        }
        if (i + 1 < json_array_size(steps))
            assert_int_equal(dialogue_next(l->dialogue, token, &token), ST_OK);
    }
    return true;
}

static bool is_likeliest(const struct large *l, int32_t token)
{
    for (size_t v = 0; v < l->n_vocab; v++)
        if (l->logits[v] > l->logits[token])
            return false;
    return true;
}

/* Along the recorded tokens: how far the margin between the best two moves. Returns whether all of them are the
 * likeliest here too. */
static bool measure_margins(struct large *l, const int32_t *ids, size_t n, const json_t *steps)
{
    dialogue_truncate(l->dialogue, 0);
    assert_int_equal(dialogue_logits(l->dialogue, ids, n, l->logits), ST_OK);
    bool alike = true;
    size_t i;
    json_t *step;
    json_array_foreach(steps, i, step) {
        struct recorded r = recorded_step(step);
        double found = (double)l->logits[r.token] - l->logits[r.second];
        double difference = found - (r.logit - r.second_logit);
        l->squares += difference * difference;
        l->n_margins++;
        alike = alike && is_likeliest(l, r.token);
        assert_int_equal(dialogue_logits(l->dialogue, &r.token, 1, l->logits), ST_OK);
    }
    return alike;
}

static void test_large_model_text(void **state)
{
    (void)state;
    if (!large_model())
        skip();
    struct cluster_options o = plain_options(large_model());
    o.n_ctx = 512;
    struct large l = {.cluster = start(&o)};
    l.dialogue = cluster_dialogue(l.cluster);
    l.n_vocab = vocabulary(l.cluster);
    l.logits = malloc(l.n_vocab * sizeof *l.logits);
    assert_non_null(l.logits);
    json_t *prompts = read_vectors("smollm2.json"), *entry;
    size_t i, n_clear = 0, n_alike = 0, n_others_alike = 0;
    json_array_foreach(prompts, i, entry) {
        size_t n;
        int32_t *ids = encode(&l, entry, &n);
        const json_t *steps = json_object_get(entry, "steps");
        if (json_is_true(json_object_get(entry, "clear"))) {
            n_clear++;
            n_alike += continues_alike(&l, ids, n, steps);
        } else {
            n_others_alike += measure_margins(&l, ids, n, steps);
        }
        free(ids);
    }
    double rms = sqrt(l.squares / (double)l.n_margins);
    print_message("%zu of %zu clear continuations alike, %zu of %zu others; margins of their %zu steps differ by %.3f "
                  "(rms)\n", n_alike, n_clear, n_others_alike, json_array_size(prompts) - n_clear, l.n_margins, rms);
    assert_int_equal(n_clear, 10);
    assert_true(n_alike >= 9);
    assert_true(l.n_margins > 300 && rms <= 0.4);
    json_decref(prompts);
    cluster_stop(l.cluster);
    free(l.logits);
}

static char *read_text(const char *name, size_t *n)
{
    char path[512];
    snprintf(path, sizeof path, TEST_DATA "/%s", name);
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    *n = (size_t)ftell(f);
    rewind(f);
    char *text = malloc(*n + 1);
    assert_non_null(text);
    assert_int_equal(fread(text, 1, *n, f), *n);
    fclose(f);
    return text;
}

static double perplexity(struct dialogue *d, const int32_t *ids, size_t windows, size_t n_ctx, size_t *scored)
{
    size_t from = n_ctx / 2, n_scores = n_ctx - from - 1;
    float *nll = malloc(n_scores * sizeof *nll);
    double sum = 0;
    assert_non_null(nll);
    for (size_t w = 0; w < windows; w++) {
        assert_int_equal(dialogue_score(d, ids + w * n_ctx, n_ctx, from, nll), ST_OK);
        for (size_t i = 0; i < n_scores; i++)
            sum += nll[i];
    }
    free(nll);
    *scored = windows * n_scores;
    return exp(sum / (double)*scored);
}

/* All of the text's bytes, its last newline too, which hearth perplexity -f leaves out. */
static void test_perplexity(void **state)
{
    (void)state;
    if (!large_model())
        skip();
    json_t *expected = read_vectors("perplexity.json");
    size_t n_ctx = (size_t)json_integer_value(json_object_get(expected, "n_ctx"));
    double reference = json_number_value(json_object_get(expected, "perplexity"));
    struct cluster_options o = plain_options(large_model());
    o.n_ctx = (uint32_t)n_ctx;
    o.threads = 0;
    struct cluster *c = start(&o);
    size_t n_bytes, n, scored;
    int32_t *ids;
    char *text = read_text(json_string_value(json_object_get(expected, "text")), &n_bytes);
    assert_int_equal(tokenizer_encode(cluster_tokenizer(c), text, n_bytes, true, false, &ids, &n), ST_OK);
    assert_int_equal(n, json_integer_value(json_object_get(expected, "tokens")));
    assert_int_equal(n / n_ctx, json_integer_value(json_object_get(expected, "windows")));
    assert_false(tokenizer_adds_bos(cluster_tokenizer(c))); /* or windows would have to begin with it */
    double found = perplexity(cluster_dialogue(c), ids, n / n_ctx, n_ctx, &scored);
    print_message("perplexity %.5f, llama.cpp's %.5f\n", found, reference);
    assert_int_equal(scored, json_integer_value(json_object_get(expected, "scored")));
    assert_true(fabs(found / reference - 1) <= 0.003);
    cluster_stop(c);
    json_decref(expected);
    free(text);
    free(ids);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tiny_models),
        cmocka_unit_test(test_large_model_text),
        cmocka_unit_test(test_perplexity),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
