/* Columns of live neurons on a GPU: the units of the scalar table's sums, whatever neurons are held and live. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/column_layout.h"
#include "kernels/cuda/neurons.h"
#include "tests/conformance/kernels_suite.h"
#include "tests/gpu/memory.h"

static struct gpu *gpu;
static const struct kernels *table; /* what a GPU is held against */

enum holding { HOLD_ALL, HOLD_RANGES, HOLD_SOME, HOLD_FEW, HOLDINGS };

static bool holds(enum holding h, struct rng *r, int64_t neuron, int64_t d_ff)
{
    switch (h) {
    case HOLD_ALL: return true;
    case HOLD_RANGES: return neuron * 5 / d_ff % 2 == 1; /* two ranges, cut anywhere */
    case HOLD_SOME: return rng_next(r) % 10 < 6;
    default: return rng_next(r) % 100 == 0 || neuron == d_ff - 1;
    }
}

/* A down projection's columns and the activations of its slots, on both sides. */
struct mixing {
    int64_t n; /* tokens */
    struct neuron_columns m, on_gpu;
    int32_t *block, *column;
    struct acts h, h_on_gpu;
    int n_ranges;
    struct gpu_range *ranges, *ranges_on_gpu;
};

static void hold(struct mixing *x, enum holding h, struct rng *r, int64_t d_ff, int64_t *n_columns, int64_t *n_blocks,
                 int64_t *n_supers)
{
    const int64_t all_blocks = (d_ff + ACT_BLOCK - 1) / ACT_BLOCK;
    int64_t last_super = -1;
    x->block = calloc((size_t)all_blocks, sizeof *x->block);
    x->column = malloc((size_t)(all_blocks * ACT_BLOCK) * sizeof *x->column);
    *n_columns = *n_blocks = *n_supers = 0;
    for (int64_t b = 0; b < all_blocks; b++) {
        bool any = false;
        for (int64_t c = 0; c < ACT_BLOCK; c++) {
            const int64_t neuron = b * ACT_BLOCK + c;
            const bool held = neuron < d_ff && holds(h, r, neuron, d_ff);
            x->column[*n_blocks * ACT_BLOCK + c] = held ? (int32_t)(*n_columns)++ : -1;
            any |= held;
        }
        if (!any)
            continue;
        x->block[(*n_blocks)++] = (int32_t)b;
        *n_supers += b / SUPER_BLOCKS != last_super;
        last_super = b / SUPER_BLOCKS;
    }
}

/* A share of `percent` is not zero; of slots that no neuron has, none. Zeros have both signs. */
static struct acts make_slots(const struct mixing *x, struct rng *r, int percent, enum filling f)
{
    const int64_t n_slots = x->m.n_blocks * ACT_BLOCK;
    struct acts h = make_acts(r, x->n, n_slots, f);
    for (int64_t i = 0; i < x->n * n_slots; i++)
        if (x->column[i % n_slots] < 0 || (int)(rng_next(r) % 100) >= percent)
            h.f32[i] = rng_next(r) % 2 ? 0.0f : -0.0f;
    table->quantize(&h, 0, x->n);
    return h;
}

static void list_ranges(struct mixing *x)
{
    x->ranges = calloc((size_t)x->m.n_blocks + 1, sizeof *x->ranges);
    for (struct column_range r = {.super = -1}; next_range(&x->m, &r);)
        x->ranges[x->n_ranges++] = (struct gpu_range){(int32_t)r.begin, (int32_t)r.end, (int32_t)r.super};
}

static void copy_to_gpu(struct mixing *x)
{
    const int64_t n_slots = x->m.n_blocks * ACT_BLOCK;
    x->on_gpu = x->m;
    x->on_gpu.codes = gpu_copy_of(x->m.codes, neuron_columns_code_bytes(&x->m));
    x->on_gpu.scales = gpu_copy_of(x->m.scales, neuron_columns_scale_bytes(&x->m));
    x->on_gpu.block = NULL; /* the ranges have it */
    x->on_gpu.column = gpu_copy_of(x->column, (size_t)n_slots * sizeof *x->column);
    x->h_on_gpu.cols = n_slots;
    x->h_on_gpu.f32 = gpu_copy_of(x->h.f32, (size_t)(x->n * n_slots) * sizeof(float));
    x->h_on_gpu.codes = gpu_copy_of(x->h.codes, (size_t)(x->n * n_slots));
    x->h_on_gpu.blocks = gpu_copy_of(x->h.blocks, (size_t)(x->n * x->m.n_blocks) * sizeof *x->h.blocks);
    x->ranges_on_gpu = gpu_copy_of(x->ranges, (size_t)x->n_ranges * sizeof *x->ranges);
}

/* broken: a value of the last token is none. */
static struct mixing make_mixing(struct rng *r, enum dtype type, bool transposed, int64_t rows, int64_t d_ff, int64_t n,
                                 enum holding h, int percent, enum filling f, bool broken)
{
    struct mixing x = {.n = n};
    int64_t n_columns, n_blocks, n_supers;
    const size_t stride = dtype_row_bytes(type, transposed ? rows : d_ff);
    uint8_t *weights = transposed ? make_weights(r, type, d_ff, rows, f) : make_weights(r, type, rows, d_ff, f);
    hold(&x, h, r, d_ff, &n_columns, &n_blocks, &n_supers);
    neuron_columns_shape(&x.m, type, transposed, rows, n_columns, n_blocks);
    x.m.block = x.block;
    x.m.column = x.column;
    x.m.n_supers = n_supers;
    x.m.codes = guarded(neuron_columns_code_bytes(&x.m));
    x.m.scales = guarded(neuron_columns_scale_bytes(&x.m));
    neuron_columns_fill(&x.m, 0, rows, weights, stride);
    free(weights);
    x.h = make_slots(&x, r, percent, f);
    if (broken) {
        for (int64_t s = n_blocks * ACT_BLOCK - 1, i = (n - 1) * n_blocks * ACT_BLOCK; s >= 0; s--)
            if (x.column[s] >= 0) {
                x.h.f32[i + s] = NAN;
                break;
            }
        table->quantize(&x.h, 0, n);
    }
    list_ranges(&x);
    copy_to_gpu(&x);
    return x;
}

static void free_mixing(struct mixing *x)
{
    gpu_release(x->on_gpu.codes);
    gpu_release(x->on_gpu.scales);
    gpu_release((void *)x->on_gpu.column);
    gpu_release(x->h_on_gpu.f32);
    gpu_release(x->h_on_gpu.codes);
    gpu_release(x->h_on_gpu.blocks);
    gpu_release(x->ranges_on_gpu);
    guarded_free(x->m.codes);
    guarded_free(x->m.scales);
    free_acts(&x->h);
    free(x->ranges);
    free(x->block);
    free(x->column);
}

/* The activations of one segment alone. */
static struct acts only_segment(const struct mixing *x, const struct gpu_range *r)
{
    const int64_t nb = x->m.n_blocks, n_slots = nb * ACT_BLOCK;
    struct acts h = {.cols = n_slots, .f32 = calloc((size_t)(x->n * n_slots), sizeof(float)),
                     .codes = guarded((size_t)(x->n * n_slots)),
                     .blocks = guarded((size_t)(x->n * nb) * sizeof *h.blocks)};
    for (int64_t t = 0; t < x->n; t++) {
        const int64_t at = t * nb + r->begin, n = r->end - r->begin;
        memcpy(h.f32 + at * ACT_BLOCK, x->h.f32 + at * ACT_BLOCK, (size_t)(n * ACT_BLOCK) * sizeof(float));
        memcpy(h.codes + at * ACT_BLOCK, x->h.codes + at * ACT_BLOCK, (size_t)(n * ACT_BLOCK));
        memcpy(h.blocks + at, x->h.blocks + at, (size_t)n * sizeof *h.blocks);
    }
    return h;
}

/* units [n, rows] += the table's, segment by segment; broken[t] where one is no number or too large. */
static void add_expected(const struct mixing *x, long long *units, uint32_t *broken)
{
    const int64_t values = x->n * x->m.rows;
    double *y = malloc((size_t)values * sizeof *y);
    for (int i = 0; i < x->n_ranges; i++) {
        struct acts h = only_segment(x, &x->ranges[i]);
        table->mix_columns(&x->m, 0, x->m.rows, &h, x->n, y, x->m.rows);
        for (int64_t j = 0; j < values; j++) {
            if (fabs(y[j]) < 0x1p31)
                units[j] += (long long)(y[j] * 0x1p30);
            else
                broken[j / x->m.rows] = 1;
        }
        free_acts(&h);
    }
    free(y);
}

static void check(const struct mixing *x, const char *what)
{
    const int64_t rows = x->m.rows, values = x->n * rows;
    const size_t bytes = (size_t)values * sizeof(long long), flags = (size_t)x->n * sizeof(uint32_t);
    long long *want = calloc((size_t)values, sizeof *want), *got = malloc(bytes);
    uint32_t *broken = calloc((size_t)x->n, sizeof *broken), *found = malloc(flags);
    struct gpu_sums to = {gpu_copy_of(want, bytes), gpu_copy_of(broken, flags)};
    add_expected(x, want, broken);
    for (int add = 0; add < 2; add++) { /* then once more on top */
        gpu_mix_columns(gpu, &x->on_gpu, x->ranges_on_gpu, x->n_ranges, &x->h_on_gpu, x->n, &to);
        gpu_read(got, to.units, bytes);
        gpu_read(found, to.broken, flags);
        for (int64_t i = 0; i < values; i++) {
            if (!found[i / rows] != !broken[i / rows])
                fail_msg("%s %s [%d, %d blocks], token %d of %d: broken is %u, expected %u", dtype_name(x->m.type),
                         what, (int)rows, (int)x->m.n_blocks, (int)(i / rows), (int)x->n, found[i / rows],
                         broken[i / rows]);
            if (!broken[i / rows] && got[i] != want[i] * (add + 1))
                fail_msg("%s %s [%d, %d blocks], %d tokens, %d neurons: value %d is %lld, expected %lld",
                         dtype_name(x->m.type), what, (int)rows, (int)x->m.n_blocks, (int)x->n, (int)x->m.n_columns,
                         (int)i, got[i], want[i] * (add + 1));
        }
    }
    gpu_release(to.units);
    gpu_release(to.broken);
    free(want);
    free(got);
    free(broken);
    free(found);
}

static void check_shape(struct rng *r, enum dtype type, bool transposed, int64_t rows, int64_t d_ff, int64_t n,
                        enum holding h, int percent, enum filling f, bool broken)
{
    struct mixing x = make_mixing(r, type, transposed, rows, d_ff, n, h, percent, f, broken);
    check(&x, transposed ? "transposed" : "");
    free_mixing(&x);
}

static const int percents[] = {0, 3, 10, 50, 100};
static const int64_t some_tokens[] = {1, 2, 3, 7, 8, 9, 33};
#define COUNT(a) (sizeof(a) / sizeof *(a))

static void columns_of_codes(void **state)
{
    (void)state;
    for (size_t i = 0; i < WEIGHT_TYPES; i++) {
        const enum dtype type = weight_types[i];
        const bool k = dtype_block(type) == 256;
        struct rng r = {.state = i};
        if (i >= OWN_TYPES) {
            for (int f = 0; f < FILLINGS; f++)
                check_shape(&r, type, false, 160, 768, 2, HOLD_SOME, 50, (enum filling)f, false);
            continue;
        }
        for (int h = 0; h < HOLDINGS; h++)
            for (size_t p = 0; p < COUNT(percents); p++)
                check_shape(&r, type, false, 160, k ? 768 : 416, 1, (enum holding)h, percents[p],
                            (enum filling)((h + p) % FILLINGS), false);
        for (size_t j = 0; j < COUNT(some_tokens); j++)
            check_shape(&r, type, false, j % 2 ? 130 : 96, k ? 512 : 320, some_tokens[j], HOLD_SOME, 20, FILL_RANDOM,
                        j == 3);
        /* Several thread blocks. */
        check_shape(&r, type, false, 300, k ? 1280 : 1248, 1, HOLD_ALL, 10, FILL_RANDOM, true);
    }
}

static void columns_of_any_width(void **state)
{
    (void)state;
    struct rng r = {.state = 7};
    for (int i = 0; i < 3; i++)
        for (int h = 0; h < HOLDINGS; h++)
            check_shape(&r, weight_types[i], false, 70, 301, 2, (enum holding)h, 50, FILL_RANDOM, h == 1);
}

static void transposed_columns(void **state)
{
    (void)state;
    for (size_t i = 0; i < WEIGHT_TYPES; i++) {
        const enum dtype type = weight_types[i];
        const bool k = dtype_block(type) == 256;
        struct rng r = {.state = 100 + i};
        if (i >= PLAIN_TYPES) { /* they differ from the others only in a weight's value */
            for (int f = 0; f < FILLINGS; f++)
                check_shape(&r, type, true, 256, 100, 2, HOLD_SOME, 50, (enum filling)f, f == FILL_RANDOM);
            continue;
        }
        for (int h = 0; h < HOLDINGS; h++)
            for (size_t p = 0; p < COUNT(percents); p++)
                check_shape(&r, type, true, k ? 256 : 160, 300, 1, (enum holding)h, percents[p],
                            (enum filling)((h + p) % FILLINGS), false);
        for (size_t j = 0; j < 3; j++)
            check_shape(&r, type, true, k ? 512 : 96, 300, some_tokens[2 * j + 1], HOLD_SOME, 20, FILL_RANDOM, j == 1);
    }
}

/* Sums that GPUs hold but that leave a grid of 2^-30 in an f32, and those at the bound of 2^31. */
static void large_sums(void **state)
{
    (void)state;
    static const float sizes[] = {0x1p20f, 0x1.8p22f, 0x1p30f, 0x1.fffffep30f, 0x1p31f, 0x1p40f, INFINITY};
    struct rng r = {.state = 9};
    struct mixing x = make_mixing(&r, DT_F32, false, 130, 64, 1, HOLD_ALL, 0, FILL_RANDOM, false);
    for (size_t i = 0; i < COUNT(sizes); i++) {
        for (int j = 0; j < 130; j++)
            ((float *)x.m.codes)[j] = j == 129 ? (i % 2 ? sizes[i] : -sizes[i]) : 1; /* neuron 0 */
        x.h.f32[0] = 1;
        gpu_release(x.on_gpu.codes);
        gpu_release(x.h_on_gpu.f32);
        x.on_gpu.codes = gpu_copy_of(x.m.codes, neuron_columns_code_bytes(&x.m));
        x.h_on_gpu.f32 = gpu_copy_of(x.h.f32, 64 * sizeof(float));
        check(&x, "large");
    }
    free_mixing(&x);
}

/* No neuron held: sums stay as they are. */
static void nothing_held(void **state)
{
    (void)state;
    const struct acts none = {0};
    struct neuron_columns m = {0};
    long long units[2 * 200];
    uint32_t broken[2] = {1, 0};
    memset(units, 0x5a, sizeof units);
    struct gpu_sums to = {gpu_copy_of(units, sizeof units), gpu_copy_of(broken, sizeof broken)};
    neuron_columns_shape(&m, DT_Q4_0, false, 200, 0, 0);
    gpu_mix_columns(gpu, &m, NULL, 0, &none, 2, &to);
    gpu_read(units, to.units, sizeof units);
    gpu_read(broken, to.broken, sizeof broken);
    for (int j = 0; j < 2 * 200; j++)
        assert_true(units[j] == 0x5a5a5a5a5a5a5a5a);
    assert_int_equal(broken[0], 1);
    assert_int_equal(broken[1], 0);
    gpu_release(to.units);
    gpu_release(to.broken);
}

static void large_shapes(void **state)
{
    (void)state;
    if (!getenv("HEARTH_GPU_LARGE"))
        skip();
    for (size_t i = 0; i < OWN_TYPES; i++) {
        struct rng r = {.state = 200 + i};
        check_shape(&r, weight_types[i], false, 4096, 11008, 1, HOLD_ALL, 10, FILL_RANDOM, false);
        check_shape(&r, weight_types[i], false, 4096, 1024, 33, HOLD_SOME, 10, FILL_RANDOM, false);
        check_shape(&r, weight_types[i], true, 4096, 1024, 8, HOLD_ALL, 10, FILL_RANDOM, false);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(columns_of_codes), cmocka_unit_test(columns_of_any_width),
        cmocka_unit_test(transposed_columns), cmocka_unit_test(large_sums),
        cmocka_unit_test(nothing_held),     cmocka_unit_test(large_shapes),
    };
    if (!(gpu = gpu_for_test())) {
        printf("SKIP: no device\n");
        return 77;
    }
    if (kernels_select(getenv("HEARTH_GPU_LARGE") ? NULL : "scalar", &table))
        return 1;
    return cmocka_run_group_tests_name("gpu neurons, columns", tests, NULL, NULL);
}
