/* Every family and activation against tests/vectors/reference.py, which computes them in float64 from the file's
 * weights: one rank and several, prompts in pieces, dense, exact and predicted. */
#include "tests/engine/engine.h"

#include <math.h>

#include "base/log.h"
#include "node/planning.h"
#include "tests/engine/made_model.h"

struct way {
    int ranks, split;
    uint32_t n_batch;
    enum sparse_mode sparse; /* of those that are not run as predicted */
    const char *kernels;
    bool down; /* all down projections at the stages */
    bool all;  /* the residual stream on all ranks */
};

/* As long as units of neurons are whole, no way changes a bit. */
static const struct way ways[] = {
    {1, SPLIT_SHARDS, 256, SPARSE_DENSE, NULL, false, false},
    {1, SPLIT_SHARDS, 256, SPARSE_EXACT, NULL, false, false},
    {1, SPLIT_SHARDS, 5, SPARSE_EXACT, "scalar", false, false},
    {2, SPLIT_SHARDS, 7, SPARSE_DENSE, NULL, false, false},
    {3, SPLIT_SHARDS, 256, SPARSE_EXACT, NULL, false, false},
    {4, SPLIT_SHARDS, 1, SPARSE_DENSE, NULL, false, false},
    {4, SPLIT_SHARDS, 9, SPARSE_EXACT, NULL, false, false},
    {2, SPLIT_SHARDS, 256, SPARSE_DENSE, NULL, false, true},
    {3, SPLIT_SHARDS, 6, SPARSE_EXACT, NULL, false, true},
    {4, SPLIT_SHARDS, 1, SPARSE_EXACT, "scalar", false, true},
    {2, SPLIT_STAGES, 256, SPARSE_DENSE, NULL, false, false},
    {2, SPLIT_STAGES, 6, SPARSE_EXACT, NULL, false, false},
    {2, SPLIT_BOTH, 11, SPARSE_EXACT, NULL, false, false},
    {3, SPLIT_SHARDS, 10, SPARSE_DENSE, NULL, true, false},
    {2, SPLIT_BOTH, 256, SPARSE_EXACT, NULL, true, false},
};

/* These split units and round a little differently, but all alike. */
static const struct way hot_ways[] = {
    {3, SPLIT_HOT, 256, SPARSE_DENSE, NULL, false, false},
    {3, SPLIT_HOT, 8, SPARSE_EXACT, NULL, false, false},
    {3, SPLIT_HOT, 256, SPARSE_DENSE, NULL, true, false},
    {3, SPLIT_HOT, 5, SPARSE_EXACT, "scalar", true, false},
};

enum { WAYS = sizeof ways / sizeof *ways, HOT_WAYS = sizeof hot_ways / sizeof *hot_ways };

struct family {
    const char *file, *activation;
    char path[512];
    bool predicted;
    int32_t *prompt;
    size_t n_prompt, n_vocab, n_rows;
    const json_t *rows, *rounded; /* rounded: NULL if weights are floats */
    double range, error;     /* of the logits; what rounding moves them */
    float *first;            /* [n_rows, n_vocab] of the first way */
    float *logits;           /* [n_rows, n_vocab] */
};

static const json_t *field(const json_t *of, const char *name)
{
    const json_t *value = json_object_get(of, name);
    assert_non_null(value);
    return value;
}

static size_t position_of(const struct family *f, size_t row)
{
    return (size_t)json_integer_value(field(json_array_get(f->rows, row), "position"));
}

/* How often neurons fire, for a plan by heat: any numbers do. */
static struct plan *make_hot(const struct plan_model *model, int ranks)
{
    const double shares[] = {3, 1, 2};
    const float **fired = calloc((size_t)model->n_layers, sizeof *fired);
    float *shown = malloc((size_t)model->layer.d_ff * sizeof *shown);
    struct plan *p;
    assert_true(fired && shown && ranks == 3);
    for (int64_t i = 0; i < model->layer.d_ff; i++)
        shown[i] = (float)(i * i % 97) / 97;
    for (int i = 0; i < model->n_layers; i++)
        fired[i] = shown;
    assert_int_equal(plan_make_hot(model, ranks, shares, fired, &p), ST_OK);
    free(shown);
    free(fired);
    return p;
}

/* A plan by heat as a temporary file; the caller removes it. */
static void write_plan(const struct family *f, const struct way *way, char path[MADE_NAME])
{
    struct model *m;
    struct plan_model model;
    assert_int_equal(model_load(f->path, &m), ST_OK);
    plan_model_of(m, &model);
    struct plan *p = make_hot(&model, way->ranks);
    plan_set_down(p, way->down);
    char *text = plan_format(p);
    assert_non_null(text);
    made_file_of(text, strlen(text), path);
    free(text);
    plan_free(p);
    model_free(m);
}

/* Feeds the prompt up to each recorded position. */
static void run(const struct family *f, const struct way *way, float *logits)
{
    struct cluster_options o = plain_options(f->path);
    char plan[MADE_NAME] = "";
    if (way->split == SPLIT_HOT) {
        write_plan(f, way, plan);
        o.plan = plan;
    } else {
        o.split = way->split;
        o.down_at_stage = way->down;
        o.residual = way->all;
    }
    o.ranks = way->ranks;
    o.n_batch = way->n_batch;
    o.kernels = way->kernels;
    o.activation = f->activation;
    o.sparse = f->predicted ? SPARSE_PREDICTED : way->sparse;
    o.n_ctx = 64;
    struct cluster *c = start(&o);
    struct dialogue *d = cluster_dialogue(c);
    assert_int_equal(vocabulary(c), f->n_vocab);
    for (size_t i = 0; i < f->n_rows; i++) {
        size_t at = dialogue_length(d);
        assert_int_equal(dialogue_logits(d, f->prompt + at, position_of(f, i) + 1 - at, logits + i * f->n_vocab), ST_OK);
    }
    cluster_stop(c);
    if (*plan)
        unlink(plan);
}

/* The largest difference from recorded rows. */
static double compare_rows(const struct family *f, const json_t *rows, double tolerance)
{
    double worst = 0;
    for (size_t i = 0; i < f->n_rows; i++) {
        const json_t *values = field(json_array_get(rows, i), "values");
        assert_int_equal(json_array_size(values), f->n_vocab);
        for (size_t v = 0; v < f->n_vocab; v++) {
            double expected = json_number_value(json_array_get(values, v)), found = f->logits[i * f->n_vocab + v];
            if (!(fabs(found - expected) <= tolerance))
                fail_msg("%s, activation %s, position %zu, token %zu: logit %.4f, the reference's %.4f, tolerance %.4f",
                         f->file, f->activation ? f->activation : "its own", position_of(f, i), v, found, expected,
                         tolerance);
            worst = fmax(worst, fabs(found - expected));
        }
    }
    return worst;
}

/* Nothing but the order of sums in f32 sets hearth apart from the reference: an error of the families would be far
 * larger than a ten thousandth of the logits' range. Where weights are quantised, what they read is rounded to 8 bits;
 * and a code that falls on the other side of a half would set it apart from the reference that rounds so too; from
 * exact arithmetic both are off by about `error`. */
static void compare_with_reference(const struct family *f)
{
    double worst;
    if (!f->rounded) {
        worst = compare_rows(f, f->rows, 1e-4 * f->range);
    } else {
        worst = compare_rows(f, f->rows, 2 * f->error);
        worst = compare_rows(f, f->rounded, 1e-3 * f->range);
    }
    print_message("%s, activation %s%s: largest difference %.5f of a range of %.2f\n", f->file,
                  f->activation ? f->activation : "its own", f->predicted ? ", predicted" : "", worst, f->range);
}

static void compare_roughly(const struct family *f)
{
    compare_rows(f, f->rows, f->rounded ? 2 * f->error : 1e-4 * f->range);
}

/* Whether a way makes sense for the family: a stage needs a layer. */
static bool can_run(const struct family *f, const struct way *way)
{
    struct model *m;
    assert_int_equal(model_load(f->path, &m), ST_OK);
    bool fits = way->split != SPLIT_STAGES || way->ranks <= m->hp.n_layers;
    bool silu = f->activation ? !strcmp(f->activation, "silu") : m->hp.activation == ACT_SILU;
    model_free(m);
    return fits && !(silu && way->sparse == SPARSE_EXACT);
}

/* Runs all of these ways: the same bits as the first, which `compare` compares with the reference. */
static void run_ways(struct family *f, const struct way *way, int n, void (*compare)(const struct family *f))
{
    const size_t bytes = f->n_rows * f->n_vocab * sizeof *f->logits;
    for (int i = 0; i < n; i++, way++) {
        if (!can_run(f, way))
            continue;
        run(f, way, f->logits);
        if (i == 0) {
            compare(f);
            memcpy(f->first, f->logits, bytes);
        }
        if (memcmp(f->first, f->logits, bytes))
            fail_msg("%s, activation %s: %d ranks, split %d, batch %u, mode %s differ from the first way", f->file,
                     f->activation ? f->activation : "its own", way->ranks, way->split, way->n_batch,
                     f->predicted ? "predicted" : sparse_mode_name(way->sparse));
    }
}

static void test_family(struct family *f)
{
    const size_t bytes = f->n_rows * f->n_vocab * sizeof *f->logits;
    f->first = malloc(bytes);
    f->logits = malloc(bytes);
    assert_true(f->first && f->logits);
    run_ways(f, ways, WAYS, compare_with_reference);
    run_ways(f, hot_ways, HOT_WAYS, compare_roughly);
    free(f->first);
    free(f->logits);
}

static void run_entries(bool predicted)
{
    json_t *entries = read_vectors("families.json"), *entry;
    size_t i, n = 0;
    json_array_foreach(entries, i, entry) {
        if (json_is_true(field(entry, "predicted")) != predicted)
            continue;
        struct family f = {.file = json_string_value(field(entry, "file")), .predicted = predicted,
                           .activation = json_string_value(field(entry, "activation")), .rows = field(entry, "logits"),
                           .rounded = json_object_get(entry, "rounded"),
                           .range = json_number_value(field(entry, "range")),
                           .error = json_number_value(field(entry, "error"))};
        snprintf(f.path, sizeof f.path, TEST_DATA "/%s", f.file);
        f.prompt = integers(field(entry, "prompt"), &f.n_prompt);
        f.n_rows = json_array_size(f.rows);
        f.n_vocab = json_array_size(field(json_array_get(f.rows, 0), "values"));
        test_family(&f);
        free(f.prompt);
        n++;
    }
    assert_true(n >= 5);
    json_decref(entries);
}

static void test_dense_and_exact(void **state)
{
    (void)state;
    run_entries(false);
}

/* With the predictors and thresholds of PowerInfer's files. */
static void test_predicted(void **state)
{
    (void)state;
    run_entries(true);
}

static int32_t *encode(const char *file, const char *text, size_t *n)
{
    char path[512];
    int32_t *ids;
    struct gguf *g;
    struct tokenizer *t;
    snprintf(path, sizeof path, TEST_DATA "/%s", file);
    assert_int_equal(gguf_open(path, &g), ST_OK);
    assert_int_equal(tokenizer_create(g, &t), ST_OK);
    assert_int_equal(tokenizer_encode(t, text, strlen(text), true, true, &ids, n), ST_OK);
    tokenizer_free(t);
    gguf_close(g);
    return ids;
}

/* OPT's files as PowerInfer's converter writes them name no pre-tokenizer: it is GPT-2's. */
static void test_opt_tokens(void **state)
{
    (void)state;
    const char *text = "the <s> they're in 12123?! \n\n $5 and";
    size_t n, n_named;
    int32_t *ids = encode("family-opt-sparse.gguf", text, &n), *named = encode("family-opt.gguf", text, &n_named);
    assert_int_equal(n, n_named);
    assert_memory_equal(ids, named, n * sizeof *ids);
    assert_int_equal(ids[0], 317); /* <s>: as the file asks */
    free(ids);
    free(named);
}

static void refused(const char *file, const struct cluster_options *changes, status expected, const char *line)
{
    static struct log_catcher caught;
    char path[512];
    struct cluster *c = NULL;
    snprintf(path, sizeof path, TEST_DATA "/%s", file);
    struct cluster_options o = plain_options(path);
    o.activation = changes->activation;
    o.sparse = changes->sparse;
    o.n_ctx = changes->n_ctx ? changes->n_ctx : 64;
    log_catch(&caught);
    status st = cluster_start(&o, &c);
    log_catch(NULL);
    if (st != expected || !strstr(caught.first_error, line))
        fail_msg("%s: status %d, expected %d; line \"%s\", expected \"%s\"", file, st, expected, caught.first_error,
                 line);
    assert_null(c);
}

static void test_what_cannot_run(void **state)
{
    (void)state;
    refused("family-falcon.gguf", &(struct cluster_options){0}, ST_USAGE, "--activation relu");
    refused("family-falcon.gguf", &(struct cluster_options){.activation = "silu"}, ST_USAGE, "needs a gate");
    refused("family-opt.gguf", &(struct cluster_options){.activation = "drelu"}, ST_USAGE, "needs a gate");
    refused("family-llama.gguf", &(struct cluster_options){.sparse = SPARSE_EXACT}, ST_USAGE, "exact");
    refused("family-opt.gguf", &(struct cluster_options){.n_ctx = 65}, ST_USAGE,
            "a context of 65 tokens, but it has learned 64 positions");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dense_and_exact),
        cmocka_unit_test(test_predicted),
        cmocka_unit_test(test_opt_tokens),
        cmocka_unit_test(test_what_cannot_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
