/* What a GPU with experts counts is what the CPU counts; and a router whose logits are no numbers is named. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/log.h"
#include "base/threads.h"
#include "device/cpu/table.h"
#include "device/cuda/table.h"
#include "kernels/kernels.h"
#include "model/model.h"
#include "tests/gpu/memory.h"

enum { TOKENS = 5, MOST_SETS = 32 };

/* A device that has all of a model. */
struct whole {
    struct model *m;
    struct span spans[MOST_SETS];
    struct neuron_list sets[MOST_SETS];
    struct shard_layer layers[4];
    struct shard shard;
    struct device_options o;
};

static void whole_begin(struct whole *w, const char *name)
{
    char path[512];
    int n = 0;
    snprintf(path, sizeof path, TEST_DATA "/%s.gguf", name);
    *w = (struct whole){0};
    assert_int_equal(model_load(path, &w->m), ST_OK);
    const struct hparams *hp = &w->m->hp;
    assert_true(hp->n_layers <= 4 && hp->n_layers * w->m->layers[hp->n_layers - 1].n_bundles <= MOST_SETS);
    for (int i = 0; i < hp->n_layers; i++) {
        w->layers[i] = (struct shard_layer){.head_end = hp->n_kv_heads, .sets = &w->sets[n], .down = true};
        for (int b = 0; b < w->m->layers[i].n_bundles; b++, n++) {
            w->spans[n] = (struct span){0, (int32_t)w->m->layers[i].bundles[b].n};
            w->sets[n] = (struct neuron_list){&w->spans[n], 1, b};
            w->layers[i].n_sets++;
        }
    }
    w->shard = (struct shard){.layers = w->layers, .row_end = hp->n_vocab, .last = hp->n_layers, .embeds = true,
                              .ends = true, .uses = {true, false}};
    w->o = (struct device_options){.model = w->m, .shard = &w->shard, .n_ctx = 64, .n_batch = TOKENS, .n_pages = 1,
                                   .kernels = kernels_available(0), .n_threads = 1};
    assert_int_equal(pool_create(1, &w->o.pool), ST_OK);
}

static void whole_end(struct whole *w)
{
    pool_destroy(w->o.pool);
    model_free(w->m);
}

/* A step of n tokens, to its end. *counts: what it took. */
static status run(const struct whole *w, const struct device_ops *ops, uint32_t n, struct device_counts *counts)
{
    static const int32_t tokens[TOKENS] = {5, 9, 7, 5, 11};
    static const uint32_t table[] = {0};
    const struct run of = {.n = n};
    const struct batch b = {&of, 1, n, table, 1};
    struct work k = {.n = n, .batch = &b};
    struct device *d;
    float *x = calloc((size_t)(n * w->m->hp.d_model), sizeof *x);
    assert_non_null(x);
    assert_int_equal(ops->open(&w->o, &d), ST_OK);
    assert_int_equal(ops->load(d, &(struct device_loading){0}), ST_OK);
    status st = ops->embed(d, &b, tokens);
    ops->counts(d);
    for (; k.layer < w->m->hp.n_layers && !st; k.layer++) {
        for (int part = DEVICE_ATTENTION; part <= DEVICE_FFN && !st; part++) {
            k.part = (enum device_part)part;
            st = ops->norm(d, &k);
            if (!st)
                ops->part(d, &k, d->in[USE_OWN], d->sums[USE_OWN]);
            st = st ? st : ops->add(d, &k);
        }
    }
    ops->export_states(d, n, x);
    st = st ? st : ops->found(d);
    *counts = ops->counts(d);
    ops->close(d);
    free(x);
    return st;
}

static void counts_what_the_cpu_counts(void **state)
{
    static const char *const files[] = {"model-qwen3moe-q4_0", "model-qwen2moe", "model-glm4moe"};
    (void)state;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        struct whole w;
        whole_begin(&w, files[i]);
        for (uint32_t n = 1; n <= TOKENS; n += TOKENS - 1) {
            struct device_counts cpu, gpu;
            assert_int_equal(run(&w, &device_cpu, n, &cpu), ST_OK);
            assert_int_equal(run(&w, &device_cuda, n, &gpu), ST_OK);
            assert_int_equal(gpu.neurons, cpu.neurons);
            assert_int_equal(gpu.flagged, cpu.flagged);
            assert_int_equal(gpu.live, cpu.live);
            assert_int_equal(gpu.bytes, cpu.bytes);
        }
        whole_end(&w);
    }
}

static void names_a_router_without_numbers(void **state)
{
    static float bias[8];
    struct log_catcher caught = {0};
    struct device_counts counts;
    struct whole w;
    (void)state;
    whole_begin(&w, "model-qwen3moe-q4_0");
    bias[3] = NAN;
    w.m->layers[1].router_bias = (struct matrix){.type = DT_F32, .rows = 1, .cols = w.m->hp.n_experts,
                                                 .data = (const uint8_t *)bias, .name = "bias"};
    log_catch(&caught);
    assert_int_equal(run(&w, &device_cuda, TOKENS, &counts), ST_NAN);
    log_catch(NULL);
    assert_non_null(strstr(caught.first_error, "layer 1: the router: value 3 of the token at position 0 of sequence 0"));
    whole_end(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(counts_what_the_cpu_counts),
                                       cmocka_unit_test(names_a_router_without_numbers)};
    return gpu_for_test() ? cmocka_run_group_tests(tests, NULL, NULL) : 77;
}
