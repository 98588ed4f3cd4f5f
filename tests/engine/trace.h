/* Comparing clusters bit by bit: what each makes of a prompt. */
#ifndef HEARTH_TESTS_TRACE_H
#define HEARTH_TESTS_TRACE_H

#include "tests/engine/made_model.h"

/* What one cluster made of a prompt: logits after it and after each greedy token; the text as a user gets it. */
struct trace {
    size_t n_rows, n_vocab, n_text;
    float *rows;    /* [n_rows, n_vocab] */
    int32_t *text;  /* [n_text] */
};

/* What every cluster of a comparison runs. */
struct job {
    const int32_t *prompt; /* [n_prompt] */
    size_t n_prompt;
    size_t n_rows, n_text;
};

static inline void trace_free(struct trace *t)
{
    free(t->rows);
    free(t->text);
}

static inline struct trace run(const struct cluster_options *o, const struct job *j)
{
    struct cluster *c = start(o);
    struct dialogue *d = cluster_dialogue(c);
    struct trace t = {.n_rows = j->n_rows, .n_vocab = vocabulary(c), .n_text = j->n_text};
    t.rows = malloc(t.n_rows * t.n_vocab * sizeof *t.rows);
    t.text = malloc((t.n_text + 1) * sizeof *t.text);
    assert_true(t.rows && t.text);
    assert_int_equal(dialogue_logits(d, j->prompt, j->n_prompt, t.rows), ST_OK);
    for (size_t i = 1; i < t.n_rows; i++) {
        int32_t token = largest(t.rows + (i - 1) * t.n_vocab, t.n_vocab);
        assert_int_equal(dialogue_logits(d, &token, 1, t.rows + i * t.n_vocab), ST_OK);
    }
    dialogue_truncate(d, 0);
    if (t.n_text)
        assert_int_equal(dialogue_prompt(d, j->prompt, j->n_prompt, &t.text[0], NULL, NULL), ST_OK);
    for (size_t i = 1; i < t.n_text; i++)
        assert_int_equal(dialogue_next(d, t.text[i - 1], &t.text[i]), ST_OK);
    cluster_stop(c);
    return t;
}

static inline void describe(const struct cluster_options *o)
{
    print_error("%s: activation %s, sparse %s, predictor %s, plan %s, split %d, residual %d, shares %s, %d ranks, %d "
                "threads, batch %u, kernels %s\n",
                o->model, o->activation ? o->activation : "-", sparse_mode_name(o->sparse),
                predictor_name(o->predictor), o->plan ? o->plan : "-", o->split, o->residual,
                o->shares ? o->shares : "-", o->ranks, o->threads, o->n_batch, o->kernels ? o->kernels : "-");
}

static inline void must_equal(const struct trace *expected, const struct cluster_options *o, const struct job *j)
{
    struct trace t = run(o, j);
    size_t row = t.n_vocab * sizeof *t.rows;
    for (size_t i = 0; i < t.n_rows; i++) {
        if (memcmp(t.rows + i * t.n_vocab, expected->rows + i * t.n_vocab, row) != 0) {
            describe(o);
            fail_msg("logits after %zu of %zu greedy tokens differ", i, t.n_rows);
        }
    }
    if (memcmp(t.text, expected->text, t.n_text * sizeof *t.text) != 0) {
        describe(o);
        fail_msg("the text of %zu tokens differs", t.n_text);
    }
    trace_free(&t);
}

/* The reference: scalar kernels, one rank, one thread. */
static inline struct trace reference(const char *model, const struct job *j)
{
    struct cluster_options o = plain_options(model);
    o.kernels = "scalar";
    struct trace t = run(&o, j);
    for (size_t i = 0; i < j->n_text && i < j->n_rows; i++) /* the sampler takes what the logits say */
        assert_int_equal(t.text[i], largest(t.rows + i * t.n_vocab, t.n_vocab));
    bool varied = false; /* or the comparison would show nothing */
    for (size_t i = 1; i < t.n_rows; i++)
        varied |= memcmp(t.rows, t.rows + i * t.n_vocab, t.n_vocab * sizeof *t.rows) != 0;
    for (size_t i = 0; i < t.n_rows * t.n_vocab; i++)
        assert_true(isfinite(t.rows[i]));
    assert_true(varied);
    return t;
}

/* The i-th of the settings that no result depends on. */
static inline void vary(struct cluster_options *o, int i)
{
    static const uint32_t batches[] = {7, 256, 1, 16, 3};
    int n_tables = 0;
    while (kernels_available(n_tables))
        n_tables++;
    o->n_batch = batches[i % 5];
    o->threads = o->ranks == 1 ? 1 + i % 3 : 1 + (i % 4 == 0); /* waiting threads spin: many of them take long */
    o->kernels = kernels_available(i % n_tables)->name;
}

static inline void fill_prompt(int32_t *prompt, size_t n)
{
    uint64_t state = 11;
    for (size_t i = 0; i < n; i++)
        prompt[i] = (int32_t)(made_draw(&state) % MADE_VOCABULARY);
}

#endif
