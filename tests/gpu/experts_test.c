/* What a GPU with experts counts is what the CPU counts; experts of types that share their kernels, and of floats in
 * any number, have the CPU's bits; and a router whose logits are no numbers is named. */
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

enum { TOKENS = 5, MOST_SETS = 32, MADE_EXPERTS = 2, MADE_BUNDLES = 3, MADE_LAYERS = 2, MADE_WIDTH = 256,
       MOST_X = TOKENS * MADE_WIDTH };

/* A device that has all of a model. */
struct whole {
    struct model *m;
    struct span spans[MOST_SETS];
    struct neuron_list sets[MOST_SETS];
    struct shard_layer layers[4];
    struct shard shard;
    struct device_options o;
};

static struct model *load(const char *name)
{
    char path[512];
    struct model *m;
    snprintf(path, sizeof path, TEST_DATA "/%s.gguf", name);
    assert_int_equal(model_load(path, &m), ST_OK);
    return m;
}

static void whole_begin(struct whole *w, struct model *m)
{
    int n = 0;
    *w = (struct whole){.m = m};
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

/* A step of n tokens, to its end. *counts: what it took; x [n, d]: what it gives. */
static status run(const struct whole *w, const struct device_ops *ops, uint32_t n, struct device_counts *counts,
                  float *x)
{
    static const int32_t tokens[TOKENS] = {5, 9, 7, 5, 11};
    static const uint32_t table[] = {0};
    const struct run of = {.n = n};
    const struct batch b = {&of, 1, n, table, 1};
    struct work k = {.n = n, .batch = &b};
    struct device *d;
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
    return st;
}

/* With 1 token, and with several. */
static void expect_the_cpus(const struct whole *w, const char *what)
{
    static float x[2][MOST_X];
    assert_true(TOKENS * w->m->hp.d_model <= MOST_X);
    for (uint32_t n = 1; n <= TOKENS; n += TOKENS - 1) {
        struct device_counts cpu, gpu;
        assert_int_equal(run(w, &device_cpu, n, &cpu, x[0]), ST_OK);
        assert_int_equal(run(w, &device_cuda, n, &gpu, x[1]), ST_OK);
        if (memcmp(x[0], x[1], (size_t)(n * w->m->hp.d_model) * sizeof **x))
            fail_msg("%s, %u tokens", what, n);
        assert_int_equal(gpu.neurons, cpu.neurons);
        assert_int_equal(gpu.flagged, cpu.flagged);
        assert_int_equal(gpu.live, cpu.live);
        if (w->o.sparse == SPARSE_DENSE) /* else the GPU knows no more than about how many */
            assert_int_equal(gpu.bytes, cpu.bytes);
    }
}

static void counts_what_the_cpu_counts(void **state)
{
    static const char *const files[] = {"model-qwen3moe-q4_0", "model-qwen2moe", "model-glm4moe"};
    (void)state;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        struct whole w;
        whole_begin(&w, load(files[i]));
        expect_the_cpus(&w, files[i]);
        whole_end(&w);
    }
}

/* ---- models without experts get some ---- */

struct made {
    struct bundle bundles[MADE_LAYERS][MADE_BUNDLES];
    float router[MADE_EXPERTS * MADE_WIDTH];
};

/* Numbers below 1, alike at every call. */
static void draw(float *to, size_t n)
{
    uint32_t seed = 7;
    for (size_t i = 0; i < n; i++, seed = seed * 1664525 + 1013904223)
        to[i] = (float)(int32_t)seed * 0x1p-31f;
}

/* The bundles become the layers', which a router chooses one of. */
static void set_experts(struct made *e, struct model *m, int n_bundles)
{
    struct hparams *hp = &m->hp;
    assert_true(hp->n_layers <= MADE_LAYERS && hp->d_model <= MADE_WIDTH);
    draw(e->router, sizeof e->router / sizeof *e->router);
    for (int i = 0; i < hp->n_layers; i++) {
        struct layer_weights *l = &m->layers[i];
        l->bundles = e->bundles[i];
        l->n_bundles = n_bundles;
        l->router = (struct matrix){DT_F32, MADE_EXPERTS, hp->d_model, (const uint8_t *)e->router, "router"};
    }
    hp->n_experts = MADE_EXPERTS;
    hp->n_experts_used = 1;
    hp->router = (struct router){.score = ROUTER_SOFTMAX, .scale = 1, .n_groups = 1, .n_groups_used = 1};
}

/* Each expert is all of a layer; ups: of another model, of another type. */
static void make_experts(struct made *e, struct model *m, const struct model *ups)
{
    for (int i = 0; i < m->hp.n_layers; i++) {
        for (int b = 0; b < MADE_EXPERTS; b++) {
            e->bundles[i][b] = *m->layers[i].bundles;
            e->bundles[i][b].routed = true;
            e->bundles[i][b].first = b * m->hp.d_ff;
            if (ups)
                e->bundles[i][b].up = ups->layers[i].bundles->up;
        }
    }
    m->hp.d_expert = m->hp.d_ff;
    m->hp.d_ff *= MADE_EXPERTS;
    set_experts(e, m, MADE_EXPERTS);
}

/* Types of which one's kernels take another's weights, alone and side by side. */
static void experts_of_types_that_share_kernels(void **state)
{
    static const struct {
        const char *of, *ups;
    } cases[] = {{"tiny-iq3_s", NULL}, {"tiny-iq3_s", "tiny-iq4_xs"}, {"tiny-iq4_xs", "tiny-iq3_xxs"},
                 {"tiny-iq1_s", NULL}, {"tiny-iq1_m", "tiny-iq2_xs"}, {"tiny-iq2_s", NULL}, {"tiny-tq1_0", NULL}};
    static struct made made;
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct model *ups = cases[i].ups ? load(cases[i].ups) : NULL, *m = load(cases[i].of);
        struct whole w;
        make_experts(&made, m, ups);
        whole_begin(&w, m);
        expect_the_cpus(&w, cases[i].of);
        whole_end(&w);
        model_free(ups);
    }
}

/* Rows and columns of single neurons, of types whose values are looked up. */
static void neurons_of_experts_that_are_looked_up(void **state)
{
    static const char *const files[] = {"tiny-mxfp4", "tiny-iq4_nl", "tiny-iq3_s", "tiny-tq1_0"};
    static struct made made;
    (void)state;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        struct model *m = load(files[i]);
        struct whole w;
        make_experts(&made, m, NULL);
        m->hp.activation = ACT_RELU;
        whole_begin(&w, m);
        w.o.sparse = SPARSE_EXACT;
        expect_the_cpus(&w, files[i]);
        whole_end(&w);
    }
}

/* Activations of 50 neurons in f32, beside those of what is shared, which are quantised. */
static void experts_of_no_whole_blocks(void **state)
{
    enum { NEURONS = 50, SHARED = 64, WIDTH = 64 };
    static float floats[WIDTH * NEURONS];
    static uint8_t blocks[WIDTH * SHARED / 32 * 34];
    static struct made made;
    struct whole w;
    struct model *m = load("tiny-f16");
    (void)state;
    assert_int_equal(m->hp.d_model, WIDTH);
    draw(floats, WIDTH * NEURONS);
    for (size_t i = 0; i < sizeof blocks; i++)
        blocks[i] = i % 34 == 0 ? 0 : i % 34 == 1 ? 0x1c : (uint8_t)(i * 37 % 251); /* f16 2^-8 */
    for (int i = 0; i < m->hp.n_layers; i++) {
        for (int b = 0; b < MADE_BUNDLES; b++) {
            struct bundle *to = &made.bundles[i][b];
            *to = *m->layers[i].bundles;
            to->routed = b < MADE_EXPERTS;
            to->first = b * NEURONS;
            to->n = to->gate.rows = to->up.rows = to->routed ? NEURONS : SHARED;
            to->down = to->routed ? (struct matrix){DT_F32, WIDTH, NEURONS, (const uint8_t *)floats, "down"}
                                  : (struct matrix){DT_Q8_0, WIDTH, SHARED, blocks, "shared"};
        }
    }
    m->hp.d_expert = NEURONS;
    m->hp.d_shared = SHARED;
    m->hp.d_ff = MADE_EXPERTS * NEURONS + SHARED;
    set_experts(&made, m, MADE_BUNDLES);
    whole_begin(&w, m);
    expect_the_cpus(&w, "50 neurons");
    whole_end(&w);
}

static void names_a_router_without_numbers(void **state)
{
    static float bias[8];
    struct log_catcher caught = {0};
    static float x[MOST_X];
    struct device_counts counts;
    struct whole w;
    (void)state;
    whole_begin(&w, load("model-qwen3moe-q4_0"));
    bias[3] = NAN;
    w.m->layers[1].router_bias = (struct matrix){.type = DT_F32, .rows = 1, .cols = w.m->hp.n_experts,
                                                 .data = (const uint8_t *)bias, .name = "bias"};
    log_catch(&caught);
    assert_int_equal(run(&w, &device_cuda, TOKENS, &counts, x), ST_NAN);
    log_catch(NULL);
    assert_non_null(strstr(caught.first_error,
                           "layer 1: the router: value 3 of the token at position 0 of sequence 0"));
    whole_end(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(counts_what_the_cpu_counts),
                                       cmocka_unit_test(experts_of_types_that_share_kernels),
                                       cmocka_unit_test(neurons_of_experts_that_are_looked_up),
                                       cmocka_unit_test(experts_of_no_whole_blocks),
                                       cmocka_unit_test(names_a_router_without_numbers)};
    return gpu_for_test() ? cmocka_run_group_tests(tests, NULL, NULL) : 77;
}
