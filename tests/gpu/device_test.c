/* A GPU as a device: the bits of the CPU, for every family of models and every way of leaving neurons out. */
#include "tests/engine/made_neurons.h"

#include "device/cuda/table.h"
#include "tests/conformance/device_conformance.h"
#include "tests/gpu/memory.h"

/* Over the stand-in a token of a layer takes a while. */
enum { TRIAL_STEPS = 1, TRIAL_TOKENS = 12, WHOLE_TRIALS = 2 };

static const char *const models[] = {"family-llama-q4_0", "family-opt-q4_0", "family-falcon-two", "tiny-mistral",
                                     "tiny-qwen3", "tiny-q4_k", "family-llama", "family-bamboo", "tiny-qwen2",
                                     "tiny-llama3", "tiny-f16", "tiny-bf16", "tiny-q6_k", "tiny-q3_k",
                                     "model-llama-yarn", "model-phi3", "tiny-mxfp4", "tiny-iq4_xs", "tiny-iq2_s",
                                     "tiny-tq1_0", "model-gemma2", "model-gemma3", "model-granite", "model-mistral3",
                                     "model-olmo2", "model-olmo3", "model-smollm3"};

static struct model *load(const char *path)
{
    struct model *m;
    assert_int_equal(model_load(path, &m), ST_OK);
    return m;
}

static struct model *load_vector(const char *name)
{
    char path[512];
    snprintf(path, sizeof path, TEST_DATA "/%s.gguf", name);
    return load(path);
}

static struct device_trial trial_of(const struct model *m, bool brief)
{
    return (struct device_trial){.ops = &device_cuda, .m = m, .kernels = kernels_available(0), .n_threads = 2,
                                 .steps = TRIAL_STEPS, .n_batch = TRIAL_TOKENS, .brief = brief};
}

static void test_models(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        if (SANITIZED && i > WHOLE_TRIALS)
            break;
        struct model *m = load_vector(models[i]);
        const struct device_trial t = trial_of(m, i >= WHOLE_TRIALS);
        if (!device_conforms(&t))
            fail_msg("%s", models[i]);
        model_free(m);
    }
}

/* What no small model without experts has: sinks, beside layers that slide, turn by another rope, or not at all. */
static void test_sinks(void **state)
{
    (void)state;
    static const float sinks[] = {0.5f, -1.25f, 3, 0.0625f, 8, -0.75f, 1.5f, 2.25f};
    struct model *m = load_vector("tiny-qwen3");
    assert_true(m->hp.n_heads <= (int64_t)(sizeof sinks / sizeof *sinks) && m->hp.n_layers >= 2);
    for (int i = 0; i < m->hp.n_layers; i++)
        m->layers[i].sinks = (struct matrix){.type = DT_F32, .rows = 1, .cols = m->hp.n_heads,
                                             .data = (const uint8_t *)sinks, .name = "sinks"};
    m->hp.window = 9;
    m->hp.rope[1] = (struct rope){.base = 700, .scale = 0.5, .magnitude = 1.25};
    m->hp.layer[0] = (struct layer_shape){.slides = true, .rope = 1};
    m->hp.attn_softcap = 2;
    const struct device_trial turned = trial_of(m, false);
    assert_true(device_conforms(&turned));
    m->hp.layer[1].rope = NO_ROPE;
    m->hp.temper = 0.5f;
    m->hp.temper_every = 4;
    const struct device_trial still = trial_of(m, true);
    assert_true(device_conforms(&still));
    model_free(m);
}

/* Layers with experts: all kinds of routers, experts beside such as all tokens share, layers without any before
 * them. */
static void test_experts(void **state)
{
    (void)state;
    static const char *const files[] = {"model-qwen3moe-q4_0", "model-qwen3moe", "model-llama-moe", "model-qwen2moe",
                                        "model-glm4moe", "model-smallthinker", "model-gpt-oss-f16", "model-gpt-oss"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        if (SANITIZED && i > 0)
            break;
        struct model *m = load_vector(files[i]);
        const struct device_trial t = trial_of(m, i > 0);
        if (!device_conforms(&t))
            fail_msg("%s", files[i]);
        model_free(m);
    }
}

/* Of old files too, whose matrices of heads lie in one. */
static void test_latent(void **state)
{
    (void)state;
    static const char *const files[] = {"model-deepseek2-q8_0", "model-deepseek2-kv-b", "model-deepseek2-lite",
                                        "model-deepseek2"};
    for (size_t i = 0; i < (SANITIZED ? 2 : sizeof files / sizeof *files); i++) {
        struct model *m = load_vector(files[i]);
        m->hp.temper = i == 1 ? 0.5f : 0;
        m->hp.temper_every = 4;
        const struct device_trial t = trial_of(m, i > 0);
        if (!device_conforms(&t))
            fail_msg("%s", files[i]);
        model_free(m);
    }
}

/* ---- sparse ---- */

/* A model's own activation and predictors. */
static void sparse_conforms(struct model *m, const struct neurons *n, enum activation a, enum sparse_mode mode,
                            enum predictor p, const char *name)
{
    struct device_trial t = trial_of(m, n == NULL && mode == SPARSE_EXACT);
    m->hp.activation = a;
    t.sparse = mode;
    t.predictor = p;
    t.neurons = n;
    assert_int_equal(sparse_mode_check(m, n, mode, &t.predictor), ST_OK);
    if (!device_conforms(&t))
        fail_msg("%s, %s", name, sparse_mode_name(mode));
}

/* PowerInfer's files bring their predictors, and down projections by neuron. */
static void test_own_predictors(void **state)
{
    (void)state;
    static const char *const files[] = {"family-llama-sparse-q4_0", "family-llama-sparse", "family-opt-sparse",
                                        "family-falcon-sparse", "family-bamboo-sparse"};
    for (size_t i = 0; i < (SANITIZED ? 1 : sizeof files / sizeof *files); i++) {
        struct model *m = load_vector(files[i]);
        sparse_conforms(m, NULL, ACT_RELU, SPARSE_PREDICTED, PREDICTOR_MLP, files[i]);
        sparse_conforms(m, NULL, ACT_RELU, SPARSE_EXACT, PREDICTOR_AUTO, files[i]);
        model_free(m);
    }
}

static void test_exact(void **state)
{
    (void)state;
    static const char *const files[] = {"family-llama-q4_0", "family-opt-q4_0", "family-falcon-two", "tiny-q4_k"};
    for (size_t i = 0; i < (SANITIZED ? 1 : sizeof files / sizeof *files); i++) {
        struct model *m = load_vector(files[i]);
        sparse_conforms(m, NULL, ACT_RELU, SPARSE_EXACT, PREDICTOR_AUTO, files[i]);
        model_free(m);
    }
}

static void test_neuron_files(void **state)
{
    (void)state;
    static const struct {
        struct made_recipe recipe;
        enum sparse_mode mode;
        enum predictor predictor;
    } ways[] = {{{ACT_RELU, 0, 0, 0, DT_Q8_0, DT_Q8_0}, SPARSE_PREDICTED, PREDICTOR_PLANES},
                {{ACT_RELU, 0, 0, 0, DT_Q8_0, DT_Q8_0}, SPARSE_PREDICTED, PREDICTOR_MLP},
                {{ACT_RELU, 0, 0, 0, DT_F16, DT_F32}, SPARSE_PREDICTED, PREDICTOR_MLP},
                {{ACT_SILU, 0, 0.05f, 0, DT_Q8_0, DT_Q8_0}, SPARSE_THRESHOLD, PREDICTOR_AUTO}};
    char path[MADE_NAME], neurons_of[MADE_NAME];
    struct made_model small = made_quantised;
    small.layers = 1;
    made_model_write(&small, path);
    struct model *m = load(path);
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        struct neurons *n;
        made_neurons_write(path, &small, &ways[i].recipe, neurons_of);
        m->hp.activation = ways[i].recipe.activation;
        assert_int_equal(neurons_load(neurons_of, m, &n), ST_OK);
        sparse_conforms(m, n, ways[i].recipe.activation, ways[i].mode, ways[i].predictor, "a made model");
        neurons_free(n);
        unlink(neurons_of);
    }
    model_free(m);
    unlink(path);
}

/* Neurons are left out within experts as they are within layers. */
static void test_sparse_experts(void **state)
{
    (void)state;
    static const struct {
        const char *model;
        enum activation activation;
        enum sparse_mode mode;
        bool measured;
    } ways[] = {
        {"model-qwen3moe-q4_0", ACT_SILU, SPARSE_THRESHOLD, true},
        {"model-qwen3moe-q4_0", ACT_RELU, SPARSE_PREDICTED, true},
        {"model-llama-moe", ACT_DRELU, SPARSE_EXACT, false},
        {"model-qwen2moe", ACT_RELU, SPARSE_EXACT, false},
    };
    for (size_t i = 0; i < (SANITIZED ? 1 : sizeof ways / sizeof *ways); i++) {
        struct model *m = load_vector(ways[i].model);
        struct neurons n = device_measures(m, ways[i].activation);
        struct device_trial t = trial_of(m, true);
        m->hp.activation = ways[i].activation;
        t.sparse = ways[i].mode;
        t.predictor = PREDICTOR_PLANES;
        t.neurons = ways[i].measured ? &n : NULL;
        if (!device_conforms(&t))
            fail_msg("%s, %s", ways[i].model, sparse_mode_name(ways[i].mode));
        device_measures_free(&n);
        model_free(m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_models), cmocka_unit_test(test_sinks),
                                       cmocka_unit_test(test_experts), cmocka_unit_test(test_latent),
                                       cmocka_unit_test(test_own_predictors), cmocka_unit_test(test_exact),
                                       cmocka_unit_test(test_neuron_files),
                                       cmocka_unit_test(test_sparse_experts)};
    return gpu_for_test() ? cmocka_run_group_tests(tests, NULL, NULL) : 77;
}
