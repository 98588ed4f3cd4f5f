/* Recorded models run in every way: on one rank and several, all splits, prompts in pieces, dense and exact. All ways
 * that leave units of neurons whole give the same bits, and those agree with the record. */
#ifndef HEARTH_TESTS_WAYS_H
#define HEARTH_TESTS_WAYS_H

#include <math.h>

#include "base/activation.h"
#include "node/planning.h"
#include "tests/engine/engine.h"
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
    uint32_t n_ctx;
    int32_t *prompt;
    size_t n_prompt, n_vocab, n_rows;
    const json_t *rows, *rounded; /* rounded: NULL if weights are floats */
    double range, error;     /* of the logits; what rounding moves them */
    float *first;            /* [n_rows, n_vocab] of the first way */
    float *logits;           /* [n_rows, n_vocab] */
};

static inline const json_t *field(const json_t *of, const char *name)
{
    const json_t *value = json_object_get(of, name);
    assert_non_null(value);
    return value;
}

static inline size_t position_of(const struct family *f, size_t row)
{
    return (size_t)json_integer_value(field(json_array_get(f->rows, row), "position"));
}

/* How often neurons fire, for a plan by heat: any numbers do. */
static inline struct plan *make_hot(const struct plan_model *model, int ranks)
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
static inline void write_plan(const struct family *f, const struct way *way, char path[MADE_NAME])
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
static inline void run(const struct family *f, const struct way *way, enum sparse_mode sparse, float *logits)
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
    o.sparse = sparse;
    o.n_ctx = f->n_ctx;
    struct cluster *c = start(&o);
    struct dialogue *d = cluster_dialogue(c);
    assert_int_equal(vocabulary(c), f->n_vocab);
    for (size_t i = 0; i < f->n_rows; i++) {
        size_t at = dialogue_length(d);
        assert_int_equal(dialogue_logits(d, f->prompt + at, position_of(f, i) + 1 - at, logits + i * f->n_vocab),
                         ST_OK);
    }
    cluster_stop(c);
    if (*plan)
        unlink(plan);
}

/* The largest difference from recorded rows. */
static inline double compare_rows(const struct family *f, const json_t *rows, double tolerance)
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
static inline void compare_with_reference(const struct family *f)
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

static inline void compare_roughly(const struct family *f)
{
    compare_rows(f, f->rows, f->rounded ? 2 * f->error : 1e-4 * f->range);
}

/* Whether a way makes sense for the family: a stage needs a layer, and experts have their down projections beside
 * them. */
static inline bool can_run(const struct model *m, const struct way *way)
{
    return (way->split != SPLIT_STAGES || way->ranks <= m->hp.n_layers) && !(way->down && m->hp.n_experts);
}

/* As the way says, but without looking for zeros where there are none. */
static inline enum sparse_mode mode_of(const struct family *f, const struct model *m, const struct way *way)
{
    enum activation a = m->hp.activation;
    if (f->predicted)
        return SPARSE_PREDICTED;
    if (f->activation)
        assert_true(activation_of(f->activation, strlen(f->activation), &a));
    return activation_is_exact(a) ? way->sparse : SPARSE_DENSE;
}

/* Under a sanitizer a file is run in the first way and a third of the others, another one for each. */
static inline bool is_tried(const struct family *f, int way)
{
    return !SANITIZED || way == 0 || ((size_t)way + strlen(f->file)) % 3 == 0;
}

/* Runs all of these ways: the same bits as the first, which `compare` compares with the reference. */
static inline void run_ways(struct family *f, const struct way *way, int n, void (*compare)(const struct family *f))
{
    const size_t bytes = f->n_rows * f->n_vocab * sizeof *f->logits;
    struct model *m;
    assert_int_equal(model_load(f->path, &m), ST_OK);
    for (int i = 0; i < n; i++, way++) {
        if (!can_run(m, way) || !is_tried(f, i))
            continue;
        enum sparse_mode sparse = mode_of(f, m, way);
        run(f, way, sparse, f->logits);
        if (i == 0) {
            compare(f);
            memcpy(f->first, f->logits, bytes);
        }
        if (memcmp(f->first, f->logits, bytes))
            fail_msg("%s, activation %s: %d ranks, split %d, batch %u, mode %s differ from the first way", f->file,
                     f->activation ? f->activation : "its own", way->ranks, way->split, way->n_batch,
                     sparse_mode_name(sparse));
    }
    model_free(m);
}

/* A family as an entry of a file of vectors has it; family_free. */
static inline struct family family_of(const json_t *entry)
{
    struct family f = {.file = json_string_value(field(entry, "file")),
                       .predicted = json_is_true(json_object_get(entry, "predicted")),
                       .activation = json_string_value(field(entry, "activation")), .rows = field(entry, "logits"),
                       .rounded = json_object_get(entry, "rounded"),
                       .range = json_number_value(field(entry, "range")),
                       .error = json_number_value(field(entry, "error"))};
    const json_t *n_ctx = json_object_get(entry, "n_ctx");
    f.n_ctx = n_ctx ? (uint32_t)json_integer_value(n_ctx) : 64;
    snprintf(f.path, sizeof f.path, TEST_DATA "/%s", f.file);
    f.prompt = integers(field(entry, "prompt"), &f.n_prompt);
    f.n_rows = json_array_size(f.rows);
    f.n_vocab = json_array_size(field(json_array_get(f.rows, 0), "values"));
    f.first = malloc(f.n_rows * f.n_vocab * sizeof *f.first);
    f.logits = malloc(f.n_rows * f.n_vocab * sizeof *f.logits);
    assert_true(f.first && f.logits);
    return f;
}

static inline void family_free(struct family *f)
{
    free(f->prompt);
    free(f->first);
    free(f->logits);
}

#endif
