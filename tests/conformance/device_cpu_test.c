/* The CPU as a device, with every table of kernels. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "base/arena.h"
#include "base/threads.h"
#include "device/cpu/table.h"
#include "device/held_neurons.h"
#include "kernels/kernels.h"
#include "model/model.h"
#include "sparsity/neurons.h"
#include "tests/conformance/device_conformance.h"
#include "tests/conformance/sanitized.h"

/* Under a sanitizer each model has a table, and each table models of all kinds: what a table does with a type of
 * weights is seen in the tests of kernels. */
static bool tried(size_t model, int table)
{
    int n = 0;
    while (kernels_available(n))
        n++;
    return !SANITIZED || (int)(model % (size_t)n) == table;
}

static void test_conforms(void **state)
{
    (void)state;
    static const char *const models[] = {"family-llama-q4_0", "family-opt-q4_0", "family-falcon-two", "tiny-mistral",
                                         "tiny-qwen3", "tiny-q4_k", "model-qwen3moe-q4_0", "model-qwen2moe",
                                         "model-gpt-oss-f16", "model-qwen3next", "model-qwen35-q8_0"};
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        char path[512];
        struct model *m;
        snprintf(path, sizeof path, TEST_DATA "/%s.gguf", models[i]);
        assert_int_equal(model_load(path, &m), ST_OK);
        for (int k = 0; kernels_available(k); k++) {
            const struct device_trial trial = {.ops = &device_cpu, .m = m, .kernels = kernels_available(k),
                                               .steps = SANITIZED ? 3 : 0, .n_threads = 1 + k % 3};
            if (tried(i, k) && !device_conforms(&trial))
                fail_msg("%s with %s kernels", models[i], kernels_available(k)->name);
        }
        model_free(m);
    }
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
        {"model-smallthinker", ACT_RELU, SPARSE_EXACT, true},
    };
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        char path[512];
        struct model *m;
        snprintf(path, sizeof path, TEST_DATA "/%s.gguf", ways[i].model);
        assert_int_equal(model_load(path, &m), ST_OK);
        m->hp.activation = ways[i].activation;
        struct neurons n = device_measures(m, ways[i].activation);
        for (int k = 0; kernels_available(k); k++) {
            const struct device_trial trial = {.ops = &device_cpu, .m = m, .kernels = kernels_available(k),
                                               .steps = SANITIZED ? 2 : 5, .n_threads = 1 + k % 3,
                                               .sparse = ways[i].mode, .brief = true, .predictor = PREDICTOR_PLANES,
                                               .neurons = ways[i].measured ? &n : NULL};
            if (tried(i, k) && !device_conforms(&trial))
                fail_msg("%s, %s with %s kernels", ways[i].model, sparse_mode_name(ways[i].mode),
                         kernels_available(k)->name);
        }
        device_measures_free(&n);
        model_free(m);
    }
}

/* A file has a layer's neurons by their number in the layer, whichever expert they are of. */
static void test_numbers_of_neurons(void **state)
{
    (void)state;
    static const struct span span = {32, 96};
    const struct neuron_list set = {&span, 1, 3};
    struct model *m;
    assert_int_equal(model_load(TEST_DATA "/model-qwen3moe-q4_0.gguf", &m), ST_OK);
    struct neurons n = device_measures(m, ACT_SILU);
    struct shard_layer layers[2] = {{.sets = &set, .n_sets = 1, .down = true}};
    const struct shard shard = {.layers = layers};
    struct device_options o = {.model = m, .neurons = &n, .shard = &shard, .sparse = SPARSE_THRESHOLD, .n_batch = 1};
    struct arena arena = {0};
    struct held_neurons held = {0};
    const struct laying to = {.arena = &arena, .o = &o, .unit = model_neuron_unit(m)};
    assert_int_equal(m->hp.n_layers, 2);
    assert_int_equal(pool_create(1, &o.pool), ST_OK);
    assert_int_equal(held_neurons_new(&o, &held), ST_OK);
    held_neurons_lay(&to, &held, 0);
    assert_int_equal(arena_map(&arena, arena.used), ST_OK);
    held_neurons_lay(&to, &held, 0);
    held_neurons_load(&(struct loading){.o = &o, .l = &(struct device_loading){0}}, &held, 0);
    for (int64_t i = 0; i < 64; i++) {
        const int64_t number = 3 * m->hp.d_expert + 32 + i;
        assert_int_equal(held.sets->set.ids[i], 32 + i);
        assert_true(held.sets->gate_slope[i] == n.layers->gate_slope[number]);
        assert_true(held.sets->gate_offset[i] == n.layers->gate_offset[number]);
        assert_true(held.sets->up_slope[i] == n.layers->up_slope[number] * n.layers->weight[number]);
    }
    held_neurons_free(&o, &held);
    arena_unmap(&arena);
    pool_destroy(o.pool);
    device_measures_free(&n);
    model_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_conforms), cmocka_unit_test(test_sparse_experts),
                                       cmocka_unit_test(test_numbers_of_neurons)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
