/* Sparse modes. Exact has the bits of dense for every family of activations, weight type, plan, number of ranks and
 * setting; the lossy modes have the same bits for every such cut too, and lose nothing when nothing is skipped. */
#include "tests/engine/made_neurons.h"

#include <math.h>

enum { PROMPT = SANITIZED ? 21 : 45 };

/* Widths that are no multiple of 512 columns, so that rows end in a part of a chunk. */
static const struct made_model made_types[] = {
    {2, 96, 384, 3, 1, 32, 0, DT_Q8_0, DT_Q4_0, DT_Q4_0, DT_Q4_0, DT_Q4_0},
    {2, 96, 384, 3, 1, 32, 0, DT_Q8_0, DT_Q4_1, DT_Q5_0, DT_Q5_1, DT_Q4_0},
    {2, 576, 384, 3, 1, 32, 0, DT_Q8_0, DT_Q8_0, DT_Q8_0, DT_Q8_0, DT_Q4_0},
    {2, 96, 384, 3, 1, 32, 0, DT_Q8_0, DT_F16, DT_BF16, DT_F32, DT_Q4_0},
    {2, 96, 384, 3, 1, 32, 0, DT_Q8_0, DT_F32, DT_Q4_0, DT_F16, DT_Q4_0},
    {2, 96, 384, 3, 1, 32, 0, DT_Q8_0, DT_Q5_1, DT_F16, DT_BF16, DT_Q4_0},
    {2, 256, 512, 4, 1, 64, 0, DT_Q4_K, DT_Q4_K, DT_Q6_K, DT_Q4_K, DT_Q2_K},
    {2, 768, 512, 4, 1, 64, 0, DT_Q4_K, DT_Q5_K, DT_Q2_K, DT_Q3_K, DT_Q2_K},
    {2, 256, 512, 4, 1, 64, 0, DT_Q4_K, DT_Q3_K, DT_Q5_K, DT_Q2_K, DT_Q2_K},
    {2, 256, 512, 4, 1, 64, 0, DT_Q4_K, DT_Q6_K, DT_Q4_K, DT_Q5_K, DT_Q2_K},
    {2, 256, 512, 4, 1, 64, 0, DT_Q4_K, DT_IQ4_XS, DT_IQ4_NL, DT_MXFP4, DT_Q2_K},
};

static const char *const exact_activations[] = {"relu", "relu2", "drelu"};

/* All splits of 1 to most_ranks ranks, every `step`-th from the first-th on. */
static void sweep(const struct trace *expected, const struct cluster_options *with, const struct job *j, int most_ranks,
                  int first, int step)
{
    int i = step - first % step;
    for (int ranks = 1; ranks <= most_ranks; ranks++) {
        for (int split = SPLIT_STAGES; split <= SPLIT_BOTH; split++, i++) {
            struct cluster_options o = *with;
            o.ranks = ranks;
            o.split = split;
            vary(&o, i);
            if (i % step == 0)
                must_equal(expected, &o, j);
        }
    }
}

static void test_exact_is_dense(void **state)
{
    (void)state;
    int32_t prompt[PROMPT];
    struct job j = {prompt, PROMPT, 4, 8};
    const int step = SANITIZED ? 5 : 2;
    fill_prompt(prompt, PROMPT);
    for (size_t m = 0; m < sizeof made_types / sizeof *made_types; m += SANITIZED ? 3 : 1) {
        char path[MADE_NAME];
        made_model_write(&made_types[m], path);
        for (size_t a = m % 3; a < 3; a += m < 2 ? 1 : 3) {
            struct cluster_options o = plain_options(path);
            o.activation = exact_activations[a];
            o.kernels = "scalar";
            struct trace expected = run(&o, &j);
            o.kernels = NULL;
            sweep(&expected, &o, &j, 3, (int)(m + a), 4 * step); /* dense itself */
            o.sparse = SPARSE_EXACT;
            sweep(&expected, &o, &j, 4, (int)(m + a), step);
            trace_free(&expected);
        }
        unlink(path);
    }
}

/* ---- plans of any sets ---- */

/* A gate's bias, and up's, count for who fires: in exact mode too. */
static void test_biases(void **state)
{
    (void)state;
    static const char model[] = TEST_DATA "/model-llama-biases.gguf";
    int32_t prompt[PROMPT];
    const struct job j = {prompt, PROMPT, 4, 4};
    fill_prompt(prompt, PROMPT);
    for (int i = 0; i < PROMPT; i++)
        prompt[i] %= 284; /* its words */
    for (size_t a = 0; a < sizeof exact_activations / sizeof *exact_activations; a++) {
        struct cluster_options o = plain_options(model);
        o.activation = exact_activations[a];
        struct trace dense = run(&o, &j);
        o.sparse = SPARSE_EXACT;
        sweep(&dense, &o, &j, 2, 0, 1);
        trace_free(&dense);
    }
}

static const struct {
    int ranks;
    const char *layers; /* the place of "down" is %s */
    bool units;         /* whole units: the bits are those of any other plan */
} plans[] = {
    {2, "{\"from\": 0, \"to\": 4, \"stage\": 0, %s \"neurons\": [0, 256, 672]}", true},
    {3, "{\"from\": 0, \"to\": 4, \"stage\": 1, %s \"neurons\": [[[128, 256], [512, 640]], [[0, 128], [640, 672]], "
        "[[256, 512]]]}", true},
    {2, "{\"from\": 0, \"to\": 4, \"stage\": 0, %s \"neurons\": [[[0, 1], [2, 40], [100, 131], [300, 301], "
        "[600, 672]], [[1, 2], [40, 100], [131, 300], [301, 600]]]}", false},
    {4, "{\"from\": 0, \"to\": 2, \"stage\": 3, %s \"neurons\": [[[5, 6]], [], [[0, 5], [6, 7], [9, 333]], [[7, 9], "
        "[333, 672]]]}, {\"from\": 2, \"to\": 4, \"stage\": 1, \"neurons\": [0, 128, 256, 384, 672]}", false},
};

static void write_plan(size_t i, const char *down, char path[MADE_NAME])
{
    char layers[1024], text[2048];
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    snprintf(layers, sizeof layers, plans[i].layers, down);
#pragma GCC diagnostic pop
    int n = snprintf(text, sizeof text,
                     "{\"hearth_plan\": 1, \"model\": {\"architecture\": \"llama\", \"layers\": 4, \"d_ff\": 672}, "
                     "\"ranks\": %d, \"layers\": [%s]}", plans[i].ranks, layers);
    made_file_of(text, (size_t)n, path);
}

static void test_any_set(void **state)
{
    (void)state;
    int32_t prompt[PROMPT];
    struct job j = {prompt, PROMPT, SANITIZED ? 3 : 6, SANITIZED ? 3 : 16};
    char model[MADE_NAME], plan[MADE_NAME];
    fill_prompt(prompt, PROMPT);
    made_model_write(&made_quantised, model);
    struct cluster_options o = plain_options(model);
    o.activation = "relu";
    struct trace any_plan = run(&o, &j);
    for (size_t i = 0; i < sizeof plans / sizeof *plans; i++) {
        struct trace expected = {0};
        for (int stage = 0; stage < 2; stage++) {
            write_plan(i, stage ? "\"down\": \"stage\"," : "", plan);
            o = plain_options(model);
            o.activation = "relu";
            o.plan = plan;
            o.ranks = plans[i].ranks;
            if (!stage)
                expected = run(&o, &j);
            if (plans[i].units)
                must_equal(&any_plan, &o, &j);
            must_equal(&expected, &o, &j);
            for (int v = 0; v < 4; v++) {
                o.sparse = v % 2 ? SPARSE_DENSE : SPARSE_EXACT;
                vary(&o, v + (int)i);
                must_equal(&expected, &o, &j);
            }
            unlink(plan);
        }
        trace_free(&expected);
    }
    trace_free(&any_plan);
    unlink(model);
}

/* ---- the lossy modes, with a neuron file made by hand ---- */

static bool same_rows(const struct trace *a, const struct trace *b)
{
    return memcmp(a->rows, b->rows, a->n_rows * a->n_vocab * sizeof *a->rows) == 0;
}

/* In one mode: all cuts agree; skipping nothing is `full`; skipping something is not. */
static void check_lossy(const struct cluster_options *with, const struct trace *full, const struct job *j, bool skips)
{
    struct cluster_options o = *with;
    o.kernels = "scalar";
    struct trace t = run(&o, j);
    o.kernels = NULL;
    assert_int_equal(same_rows(&t, full), !skips);
    sweep(&t, &o, j, 4, skips, SANITIZED ? 5 : 2);
    trace_free(&t);
}

static void test_predicted(void **state)
{
    (void)state;
    int32_t prompt[PROMPT];
    struct job j = {prompt, PROMPT, 4, 4};
    char model[MADE_NAME], neurons[MADE_NAME];
    fill_prompt(prompt, PROMPT);
    made_model_write(&made_quantised, model);
    struct cluster_options o = plain_options(model);
    o.activation = "relu";
    struct trace dense = run(&o, &j);
    for (int skips = 0; skips < 2; skips++) {
        const struct made_recipe r = {.activation = ACT_RELU, .bound = skips ? 0.2f : -1e6f,
                                      .mlp = skips ? 0 : -1e6f, .fc1 = DT_Q8_0, .fc2 = DT_Q8_0};
        made_neurons_write(model, &made_quantised, &r, neurons);
        o.neurons = neurons;
        o.sparse = SPARSE_PREDICTED;
        o.predictor = PREDICTOR_PLANES;
        check_lossy(&o, &dense, &j, skips);
        o.predictor = PREDICTOR_MLP;
        check_lossy(&o, &dense, &j, skips);
        unlink(neurons);
    }
    trace_free(&dense);
    unlink(model);
}

static void test_threshold(void **state)
{
    (void)state;
    static const struct made_model *const models[] = {&made_quantised, &made_types[1], &made_types[9]};
    int32_t prompt[PROMPT];
    struct job j = {prompt, PROMPT, 4, 4};
    fill_prompt(prompt, PROMPT);
    for (size_t m = 0; m < 2; m++) {
        char model[MADE_NAME], neurons[MADE_NAME];
        made_model_write(models[m], model);
        struct cluster_options o = plain_options(model);
        struct trace dense = run(&o, &j);
        for (int skips = 0; skips < 2; skips++) {
            const struct made_recipe r = {.activation = ACT_SILU, .skip = skips ? 0.05f : 0, .fc1 = DT_Q8_0,
                                          .fc2 = DT_Q8_0};
            made_neurons_write(model, models[m], &r, neurons);
            o.neurons = neurons;
            o.sparse = SPARSE_THRESHOLD;
            check_lossy(&o, &dense, &j, skips);
            unlink(neurons);
        }
        trace_free(&dense);
        unlink(model);
    }
}

/* Neither the model nor the neuron file is read once the cluster stands. */
static void test_files_cut(void **state)
{
    (void)state;
    int32_t prompt[8];
    fill_prompt(prompt, 8);
    const struct job j = {.prompt = prompt, .n_prompt = 8, .n_rows = 1};
    for (int planes = 0; planes < 2; planes++) {
        char model[MADE_NAME], neurons[MADE_NAME];
        float logits[MADE_VOCABULARY];
        made_model_write(&made_quantised, model);
        made_neurons_write(model, &made_quantised, &(struct made_recipe){ACT_RELU, .bound = 0.2f}, neurons);
        struct cluster_options o = plain_options(model);
        o.activation = "relu";
        o.neurons = neurons;
        o.ranks = 2;
        o.sparse = SPARSE_PREDICTED;
        o.predictor = planes ? PREDICTOR_PLANES : PREDICTOR_MLP;
        struct trace expected = run(&o, &j);
        struct cluster *c = start(&o);
        assert_int_equal(truncate(model, 0), 0);
        assert_int_equal(truncate(neurons, 0), 0);
        assert_int_equal(dialogue_logits(cluster_dialogue(c), prompt, 8, logits), ST_OK);
        assert_memory_equal(logits, expected.rows, sizeof logits);
        cluster_stop(c);
        trace_free(&expected);
        unlink(neurons);
        unlink(model);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exact_is_dense),
        cmocka_unit_test(test_biases),
        cmocka_unit_test(test_any_set),
        cmocka_unit_test(test_predicted),
        cmocka_unit_test(test_threshold),
        cmocka_unit_test(test_files_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
