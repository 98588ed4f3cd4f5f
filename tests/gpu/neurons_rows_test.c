/* Rows of single neurons on a GPU: products of pairs, what becomes of them, and estimates have the scalar table's
 * bits. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/cuda/neurons.h"
#include "kernels/row_layout.h"
#include "tests/conformance/kernels_suite.h"
#include "tests/gpu/memory.h"

static struct gpu *gpu;
static const struct kernels *table; /* what a GPU is held against */

static bool same_bits(float a, float b) { return memcmp(&a, &b, sizeof a) == 0 || (isnan(a) && isnan(b)); }

/* Rows and tokens, on both sides. */
struct fixture {
    struct neuron_rows m, on_gpu;
    struct acts x, x_on_gpu;
    struct lane_acts lanes;
    int64_t n; /* tokens */
};

static struct acts acts_on_gpu(const struct acts *a, int64_t n)
{
    struct acts to = {.cols = a->cols};
    to.f32 = gpu_copy_of(a->f32, (size_t)(n * a->cols) * sizeof *a->f32);
    to.codes = gpu_copy_of(a->codes, (size_t)(n * a->cols));
    to.blocks = gpu_copy_of(a->blocks, (size_t)(n * a->cols / ACT_BLOCK) * sizeof *a->blocks);
    return to;
}

static void release_acts(struct acts *a)
{
    gpu_release(a->f32);
    gpu_release(a->codes);
    gpu_release(a->blocks);
}

/* broken: a value of the last token is none. */
static struct fixture make_fixture(enum dtype type, bool planes, int64_t rows, int64_t cols, int64_t n, enum filling f,
                                   bool broken)
{
    struct rng r = {.state = (uint64_t)(type * 1000 + cols + n * 7 + f)};
    struct fixture x = {.n = n};
    uint8_t *weights = make_weights(&r, type, rows, cols, f);
    neuron_rows_shape(&x.m, type, rows, cols, planes);
    x.m.top = guarded((size_t)rows * x.m.top_bytes);
    x.m.rest = planes ? guarded((size_t)rows * x.m.rest_bytes) : NULL;
    neuron_rows_fill(&x.m, 0, rows, weights, dtype_row_bytes(type, cols), NULL);
    free(weights);
    x.x = make_acts(&r, n, cols, f);
    if (broken) {
        x.x.f32[n * cols - 1 - cols / 2] = NAN;
        if (cols % ACT_BLOCK == 0)
            table->quantize(&x.x, 0, n);
    }
    x.lanes = make_lanes(table, &x.x, n, dtype_is_quantised(type));
    x.on_gpu = x.m;
    x.on_gpu.top = gpu_copy_of(x.m.top, (size_t)rows * x.m.top_bytes);
    x.on_gpu.rest = planes ? gpu_copy_of(x.m.rest, (size_t)rows * x.m.rest_bytes) : NULL;
    x.x_on_gpu = acts_on_gpu(&x.x, n);
    return x;
}

static void free_fixture(struct fixture *x)
{
    gpu_release(x->on_gpu.top);
    if (x->on_gpu.rest)
        gpu_release(x->on_gpu.rest);
    release_acts(&x->x_on_gpu);
    guarded_free(x->m.top);
    guarded_free(x->m.rest);
    free_acts(&x->x);
    free_lanes(&x->lanes);
}

/* Pairs in any order, of which there might be `most`. */
struct chosen {
    int64_t most;
    uint32_t n;
    int32_t *row, *token;
    float *gate;
    struct gpu_pairs on_gpu;
};

/* A share of all pairs, one in `one_in`; gates of all kinds. */
static struct chosen choose(struct rng *r, const struct fixture *x, uint64_t one_in)
{
    const int64_t most = x->m.rows * x->n;
    struct chosen c = {.most = most, .row = malloc((size_t)most * 4), .token = malloc((size_t)most * 4),
                       .gate = malloc((size_t)most * 4)};
    for (int64_t i = 0; i < most; i++) {
        if (rng_next(r) % one_in)
            continue;
        const uint32_t at = c.n++, other = (uint32_t)(rng_next(r) % c.n); /* a place anywhere */
        c.row[at] = c.row[other];
        c.token[at] = c.token[other];
        c.row[other] = (int32_t)(i / x->n);
        c.token[other] = (int32_t)(i % x->n);
    }
    for (int64_t i = 0; i < most; i++)
        c.gate[i] = rng_next(r) % 8 == 0 ? 0.0f : rng_next(r) % 8 == 0 ? NAN : rng_float(r);
    memset(c.row + c.n, 0x7f, (size_t)(most - c.n) * 4); /* whoever looks at what is no pair, goes astray */
    memset(c.token + c.n, 0x7f, (size_t)(most - c.n) * 4);
    c.on_gpu.n = gpu_copy_of(&c.n, sizeof c.n);
    c.on_gpu.row = gpu_copy_of(c.row, (size_t)most * 4);
    c.on_gpu.token = gpu_copy_of(c.token, (size_t)most * 4);
    c.on_gpu.gate = gpu_copy_of(c.gate, (size_t)most * 4);
    return c;
}

static void free_chosen(struct chosen *c)
{
    gpu_release(c->on_gpu.n);
    gpu_release(c->on_gpu.row);
    gpu_release(c->on_gpu.token);
    gpu_release(c->on_gpu.gate);
    free(c->row);
    free(c->token);
    free(c->gate);
}

static void check_gates(const struct gpu *g, const struct fixture *x, const struct chosen *c, const float *product,
                        const float *bias)
{
    float *got = malloc((size_t)c->most * sizeof *got), *gate = gpu_copy_of(NULL, (size_t)c->most * sizeof *gate);
    float *bias_on_gpu = bias ? gpu_copy_of(bias, (size_t)x->m.rows * sizeof *bias) : NULL;
    struct gpu_pairs pairs = c->on_gpu;
    pairs.gate = gate;
    gpu_gate_pairs(g, &x->on_gpu, &x->x_on_gpu, bias_on_gpu, c->most, &pairs);
    gpu_read(got, gate, (size_t)c->most * sizeof *got);
    for (uint32_t i = 0; i < c->n; i++) {
        const float want = bias ? product[i] + bias[c->row[i]] : product[i];
        if (!same_bits(want, got[i]))
            fail_msg("%s%s, %d columns, %d tokens: row %d times token %d is %a, expected %a", dtype_name(x->m.type),
                     x->m.planes ? " in planes" : "", (int)x->m.cols, (int)x->n, c->row[i], c->token[i], (double)got[i],
                     (double)want);
    }
    for (int64_t i = (int64_t)c->n * 4; i < c->most * 4; i++)
        assert_int_equal(((uint8_t *)got)[i], 0xa5);
    gpu_release(gate);
    if (bias_on_gpu)
        gpu_release(bias_on_gpu);
    free(got);
}

/* h has a slot for each row, and a few that are nobody's. */
static void check_activations(const struct gpu *g, const struct fixture *x, const struct chosen *c,
                              const float *product, enum activation a, bool all, bool has_up)
{
    const int64_t rows = x->m.rows, stride = rows + 5;
    const size_t bytes = (size_t)(x->n * stride) * sizeof(float);
    int32_t *slot = malloc((size_t)rows * sizeof *slot);
    float *want = malloc(bytes), *got = malloc(bytes);
    struct gpu_counts counts = {.live = 100}, after;
    for (int64_t i = 0; i < rows; i++)
        slot[i] = (int32_t)((i * 7 + 3) % stride); /* stride and 7 have no common factor */
    memset(want, 0xa5, bytes);
    for (uint32_t i = 0; i < c->n; i++) {
        if (!all && c->gate[i] <= 0)
            continue;
        table->activate(a, has_up ? &c->gate[i] : NULL, has_up ? &product[i] : &c->gate[i], 1,
                         &want[c->token[i] * stride + slot[c->row[i]]]);
        counts.live++;
        counts.rows_read += has_up;
    }
    float *h = gpu_copy_of(NULL, bytes);
    int32_t *slot_on_gpu = gpu_copy_of(slot, (size_t)rows * sizeof *slot);
    struct gpu_counts *counted = gpu_copy_of(&(struct gpu_counts){.live = 100}, sizeof *counted);
    gpu_activate_pairs(g, a, has_up ? &x->on_gpu : NULL, NULL, &x->x_on_gpu, all, c->most, &c->on_gpu, slot_on_gpu, h,
                       stride, counted);
    gpu_read(got, h, bytes);
    gpu_read(&after, counted, sizeof after);
    for (int64_t i = 0; i < x->n * stride; i++)
        if (!same_bits(want[i], got[i]))
            fail_msg("%s, %s: slot %d of %d is %a, expected %a", dtype_name(x->m.type), activation_name(a),
                     (int)(i % stride), (int)stride, (double)got[i], (double)want[i]);
    assert_int_equal(after.live, counts.live);
    assert_int_equal(after.rows_read, counts.rows_read);
    assert_int_equal(after.flagged, 0);
    gpu_release(h);
    gpu_release(slot_on_gpu);
    gpu_release(counted);
    free(slot);
    free(want);
    free(got);
}

/* All pairs, without more. */
static void expect_products(const struct fixture *x)
{
    struct rng r = {.state = 7};
    struct chosen c = choose(&r, x, 1);
    float *product = malloc((size_t)c.most * sizeof *product);
    table->dot_rows(&x->m, &x->lanes, c.row, c.token, c.n, product);
    check_gates(gpu, x, &c, product, NULL);
    free(product);
    free_chosen(&c);
}

static void check_pairs(enum dtype type, bool planes, int64_t rows, int64_t cols, int64_t n, enum filling f,
                        uint64_t one_in, bool broken)
{
    struct rng r = {.state = (uint64_t)(cols + n)};
    struct fixture x = make_fixture(type, planes, rows, cols, n, f, broken);
    struct chosen c = choose(&r, &x, one_in);
    struct gpu few = *gpu;
    float *product = malloc((size_t)c.most * sizeof *product), *bias = make_floats(&r, rows, FILL_RANDOM);
    few.n_sms = 1; /* so that thread blocks come back for more pairs */
    table->dot_rows(&x.m, &x.lanes, c.row, c.token, c.n, product);
    check_gates(gpu, &x, &c, product, NULL);
    check_gates(&few, &x, &c, product, bias);
    check_activations(&few, &x, &c, product, (enum activation)(rng_next(&r) % ACTIVATIONS), false, true);
    check_activations(gpu, &x, &c, product, (enum activation)(rng_next(&r) % ACTIVATIONS), true, true);
    free(product);
    free(bias);
    free_chosen(&c);
    free_fixture(&x);
}

static void each_type(void (*check)(enum dtype type, bool planes))
{
    for (int i = 0; i < OWN_TYPES; i++)
        for (int planes = 0; planes <= dtype_has_planes(weight_types[i]); planes++)
            check(weight_types[i], planes);
}

static void check_pairs_of(enum dtype type, bool planes)
{
    static const struct {
        int64_t cols, n;
        enum filling f;
        uint64_t one_in;
    } of[] = {{32, 1, FILL_RANDOM, 1},  {96, 2, FILL_TINY, 2},    {576, 3, FILL_RANDOM, 3},  {512, 1, FILL_EXTREME, 1},
              {768, 7, FILL_TINY, 9},   {2080, 1, FILL_RANDOM, 5}, {2304, 2, FILL_RANDOM, 9}, {256, 9, FILL_RANDOM, 4}};
    for (size_t i = 0; i < sizeof of / sizeof *of; i++)
        if (of[i].cols % dtype_block(type) == 0)
            check_pairs(type, planes, 19, of[i].cols, of[i].n, of[i].f, of[i].one_in, i == 2);
    check_pairs(type, planes, 3, 11008, 1, FILL_RANDOM, 1, false);
    check_pairs(type, planes, 5, 512, 33, FILL_RANDOM, 2, true);
}

static void products_of_pairs(void **state)
{
    (void)state;
    each_type(check_pairs_of);
    for (int i = OWN_TYPES; i < WEIGHT_TYPES; i++)
        for (int f = 0; f < FILLINGS; f++)
            check_pairs(weight_types[i], false, 19, 768, 2, (enum filling)f, 2, false);
    /* A warp has several pairs of as many links as go. */
    check_pairs(DT_Q4_0, false, 19, 4096, 1, FILL_RANDOM, 1, false);
    check_pairs(DT_F16, false, 5, 45, 2, FILL_RANDOM, 1, true); /* rows of x that do not lie on 16 bytes */
    check_pairs(DT_F32, false, 5, 301, 2, FILL_RANDOM, 1, false);
    check_pairs(DT_BF16, false, 5, 130, 3, FILL_RANDOM, 1, false);
}

static void layers_without_a_gate(void **state)
{
    (void)state;
    struct rng r = {.state = 5};
    struct fixture x = make_fixture(DT_Q4_0, false, 301, 32, 3, FILL_RANDOM, false);
    struct chosen c = choose(&r, &x, 3);
    struct gpu few = *gpu;
    few.n_sms = 1;
    for (int all = 0; all < 2; all++)
        for (int a = 0; a < ACT_DRELU; a++)
            check_activations(all ? gpu : &few, &x, &c, NULL, (enum activation)a, all, false);
    free_chosen(&c);
    free_fixture(&x);
}

static void no_pairs(void **state)
{
    (void)state;
    struct rng r = {.state = 6};
    struct fixture x = make_fixture(DT_Q8_0, false, 10, 64, 1, FILL_RANDOM, false);
    struct chosen c = choose(&r, &x, UINT64_MAX);
    assert_int_equal(c.n, 0);
    check_gates(gpu, &x, &c, NULL, NULL);
    check_activations(gpu, &x, &c, NULL, ACT_RELU, true, true);
    check_activations(gpu, &x, &c, NULL, ACT_RELU, true, false);
    free_chosen(&c);
    free_fixture(&x);
}

static void expect_estimates(const struct fixture *x)
{
    const int64_t stride = x->m.rows + 3;
    const size_t bytes = (size_t)(x->n * stride) * sizeof(float);
    float *want = malloc(bytes), *got = malloc(bytes), *y = gpu_copy_of(NULL, bytes);
    memset(want, 0xa5, bytes);
    table->estimate_rows(&x->m, 0, x->m.rows, &x->lanes, x->n, want, stride);
    gpu_estimate_rows(gpu, &x->on_gpu, &x->x_on_gpu, x->n, y, stride);
    gpu_read(got, y, bytes);
    for (int64_t i = 0; i < x->n * stride; i++)
        if (!same_bits(want[i], got[i]))
            fail_msg("%s, %d columns, %d tokens: estimate %d is %a, expected %a", dtype_name(x->m.type), (int)x->m.cols,
                     (int)x->n, (int)i, (double)got[i], (double)want[i]);
    gpu_release(y);
    free(want);
    free(got);
}

static void check_estimates(enum dtype type, int64_t rows, int64_t cols, int64_t n, enum filling f, bool broken)
{
    struct fixture x = make_fixture(type, true, rows, cols, n, f, broken);
    expect_estimates(&x);
    free_fixture(&x);
}

static void check_estimates_of(enum dtype type, bool planes)
{
    static const struct {
        int64_t cols, n;
        enum filling f;
    } of[] = {{32, 1, FILL_RANDOM}, {96, 2, FILL_TINY},    {576, 3, FILL_RANDOM}, {512, 1, FILL_EXTREME},
              {768, 7, FILL_TINY},  {1536, 9, FILL_RANDOM}, {256, 8, FILL_EXTREME}, {4608, 9, FILL_RANDOM}};
    for (size_t i = 0; i < sizeof of / sizeof *of && planes; i++)
        if (of[i].cols % dtype_block(type) == 0)
            check_estimates(type, 37, of[i].cols, of[i].n, of[i].f, i == 2 || i == 5);
    if (planes)
        check_estimates(type, 1, 11008, 1, FILL_RANDOM, false);
}

static void estimates(void **state)
{
    (void)state;
    each_type(check_estimates_of);
}

/* Scales that only messages have, so small that products round to -0, which what is not there must not turn, and that
 * half of one is no number of f32. */
static void scales_below_normal_ones(void **state)
{
    (void)state;
    static const enum dtype types[] = {DT_Q4_1, DT_Q5_1, DT_Q4_0, DT_Q8_0};
    static const float scales[] = {0x1p-149f, 0x1.8p-148f, 0x1.4p-147f};
    for (size_t i = 0; i < 12; i++) {
        const enum dtype type = types[i / 3];
        const struct layout l = layout_of(type);
        for (int zero = 0; zero < 2; zero++) {
            struct fixture x = make_fixture(type, true, 5, 1120, 1, FILL_EXTREME, false); /* 35 blocks */
            const int64_t nb = x.m.cols / ACT_BLOCK;
            for (int64_t b = 0; b < nb; b++) {
                x.x.blocks[b].scale = scales[i % 3];
                for (int c = 0; c < ACT_BLOCK; c++)
                    x.x.codes[b * ACT_BLOCK + c] = (int8_t)-(c % 3);
            }
            for (int64_t r = 0; zero && r < x.m.rows; r++) /* d is 0, m the least there is */
                for (int64_t b = 0; b < nb; b++) {
                    const struct chunk k = chunk_of(nb, b / LANE_BLOCKS);
                    const struct chunk_place p = top_place(l, true, x.m.top + (size_t)r * x.m.top_bytes, k);
                    memset(p.d + 2 * (b % LANE_BLOCKS), 0, 2);
                    if (l.minima)
                        memcpy(p.m + 2 * (b % LANE_BLOCKS), &(uint16_t){1}, 2);
                }
            table->sum_blocks(&x.x, 0, 1);
            table->spread(&x.x, 0, 1, &x.lanes);
            gpu_write(x.on_gpu.top, x.m.top, (size_t)x.m.rows * x.m.top_bytes);
            gpu_write(x.x_on_gpu.codes, x.x.codes, (size_t)x.m.cols);
            gpu_write(x.x_on_gpu.blocks, x.x.blocks, (size_t)nb * sizeof *x.x.blocks);
            expect_estimates(&x);
            expect_products(&x);
            free_fixture(&x);
        }
    }
}

static void check_large(enum dtype type, bool planes)
{
    check_pairs(type, planes, 1000, 4096, 1, FILL_RANDOM, 3, false);
    check_pairs(type, planes, 4000, 4096, 8, FILL_RANDOM, 10, false);
    if (planes)
        check_estimates(type, 4000, 4096, 8, FILL_RANDOM, false);
}

static void large_shapes(void **state)
{
    (void)state;
    if (!getenv("HEARTH_GPU_LARGE"))
        skip();
    each_type(check_large);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_of_pairs), cmocka_unit_test(layers_without_a_gate), cmocka_unit_test(no_pairs),
        cmocka_unit_test(estimates),         cmocka_unit_test(scales_below_normal_ones),
        cmocka_unit_test(large_shapes),
    };
    if (!(gpu = gpu_for_test())) {
        printf("SKIP: no device\n");
        return 77;
    }
    if (kernels_select(getenv("HEARTH_GPU_LARGE") ? NULL : "scalar", &table))
        return 1;
    return cmocka_run_group_tests_name("gpu neurons, rows", tests, NULL, NULL);
}
