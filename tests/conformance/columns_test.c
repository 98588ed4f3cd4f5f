/* Mixing the columns of live neurons: every table gives the bits of matmul_partial over the packed matrix, whatever
 * neurons are held, live and asked for, and writes nothing else. Transposed columns, which have no packed equal, are
 * held against the scalar reference, and that against double arithmetic. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/columns.h"
#include "kernels/tables.h"
#include "tests/conformance/kernels_suite.h"
#include "tests/conformance/sanitized.h"

/* Which neurons of a layer a matrix holds. */
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

/* A layer's down projection and the part of it that is held. */
struct mixing {
    int64_t rows, d_ff, n_tokens;
    uint8_t *weights; /* as the file has them */
    struct neuron_columns m;
    int32_t *block, *column;
    struct acts whole, slots; /* the same activations for all neurons and for those held */
};

static void hold(struct mixing *x, enum holding h, struct rng *r, int64_t *n_columns, int64_t *n_blocks,
                 int64_t *n_supers)
{
    const int64_t all_blocks = (x->d_ff + ACT_BLOCK - 1) / ACT_BLOCK;
    int64_t last_super = -1;
    x->block = calloc((size_t)all_blocks, sizeof *x->block);
    x->column = malloc((size_t)(all_blocks * ACT_BLOCK) * sizeof *x->column);
    *n_columns = *n_blocks = *n_supers = 0;
    for (int64_t b = 0; b < all_blocks; b++) {
        bool any = false;
        for (int64_t c = 0; c < ACT_BLOCK; c++) {
            const int64_t neuron = b * ACT_BLOCK + c;
            const bool held = neuron < x->d_ff && holds(h, r, neuron, x->d_ff);
            x->column[*n_blocks * ACT_BLOCK + c] = held ? (int32_t)(*n_columns)++ : -1;
            any |= held;
        }
        if (!any)
            continue;
        x->block[(*n_blocks)++] = (int32_t)b;
        *n_supers += b / 8 != last_super;
        last_super = b / 8;
    }
}

/* Activations of which a share of `percent` is not zero, and of those not held none. Float weights read them as they
 * are, and zeros of both signs. */
static void make_slots(struct mixing *x, struct rng *r, int percent, enum filling f)
{
    const int64_t n_slots = x->m.n_blocks * ACT_BLOCK;
    float *live = make_floats(r, x->n_tokens * x->d_ff, f);
    x->whole = make_acts(r, x->n_tokens, x->d_ff, f);
    x->slots = make_acts(r, x->n_tokens, n_slots, f);
    for (int64_t i = 0; i < x->n_tokens * x->d_ff; i++)
        x->whole.f32[i] = rng_next(r) % 2 ? 0.0f : -0.0f;
    for (int64_t t = 0; t < x->n_tokens; t++) {
        for (int64_t s = 0; s < n_slots; s++) {
            const int64_t neuron = x->block[s / ACT_BLOCK] * (int64_t)ACT_BLOCK + s % ACT_BLOCK;
            float *slot = &x->slots.f32[t * n_slots + s];
            *slot = rng_next(r) % 2 ? 0.0f : -0.0f;
            if (x->column[s] >= 0 && (int)(rng_next(r) % 100) < percent)
                x->whole.f32[t * x->d_ff + neuron] = *slot = live[t * x->d_ff + neuron];
        }
    }
    if (x->d_ff % ACT_BLOCK == 0)
        kernels_scalar.quantize(&x->whole, 0, x->n_tokens);
    kernels_scalar.quantize(&x->slots, 0, x->n_tokens);
    free(live);
}

static struct mixing make_mixing(struct rng *r, enum dtype type, bool transposed, int64_t rows, int64_t d_ff,
                                 int64_t n_tokens, enum holding h, int percent, enum filling f)
{
    struct mixing x = {.rows = rows, .d_ff = d_ff, .n_tokens = n_tokens};
    int64_t n_columns, n_blocks, n_supers;
    const size_t stride = dtype_row_bytes(type, transposed ? rows : d_ff);
    x.weights = transposed ? make_weights(r, type, d_ff, rows, f) : make_weights(r, type, rows, d_ff, f);
    hold(&x, h, r, &n_columns, &n_blocks, &n_supers);
    neuron_columns_shape(&x.m, type, transposed, rows, n_columns, n_blocks);
    x.m.block = x.block;
    x.m.column = x.column;
    x.m.n_supers = n_supers;
    x.m.codes = guarded(neuron_columns_code_bytes(&x.m));
    x.m.scales = guarded(neuron_columns_scale_bytes(&x.m));
    memset(x.m.codes, 0x5a, neuron_columns_code_bytes(&x.m)); /* what fill leaves out shows */
    memset(x.m.scales, 0x5a, neuron_columns_scale_bytes(&x.m));
    for (int64_t row = 0; row < rows; row += COLUMN_TILE)
        neuron_columns_fill(&x.m, row, row + COLUMN_TILE < rows ? row + COLUMN_TILE : rows, x.weights, stride);
    assert_true(guarded_intact(x.m.codes, neuron_columns_code_bytes(&x.m)));
    assert_true(guarded_intact(x.m.scales, neuron_columns_scale_bytes(&x.m)));
    make_slots(&x, r, percent, f);
    return x;
}

static void free_mixing(struct mixing *x)
{
    free(x->weights);
    free(x->block);
    free(x->column);
    guarded_free(x->m.codes);
    guarded_free(x->m.scales);
    free_acts(&x->whole);
    free_acts(&x->slots);
}

static void expect_same(const struct kernels *k, const struct mixing *x, const char *what, const double *want,
                        const double *got, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (memcmp(&want[i], &got[i], sizeof *want))
            fail_msg("%s, %s %s [%d, %d], %d tokens, %d neurons: value %d is %a, expected %a", k->name,
                     dtype_name(x->m.type), what, (int)x->rows, (int)x->d_ff, (int)x->n_tokens, (int)x->m.n_columns,
                     (int)i, got[i], want[i]);
}

/* The product in one call, and in a call for each tile and token. What lies between rows and stride stays. */
static void check_product(const struct kernels *k, const struct mixing *x, const double *want, int64_t stride)
{
    const size_t bytes = (size_t)(x->n_tokens * stride) * sizeof(double);
    const int64_t n_slots = x->m.n_blocks * ACT_BLOCK;
    double *got = guarded(bytes);
    k->mix_columns(&x->m, 0, x->rows, &x->slots, x->n_tokens, got, stride);
    expect_same(k, x, "whole", want, got, x->n_tokens * stride);
    memset(got, 0, bytes);
    for (int64_t t = 0; t < x->n_tokens; t++) {
        const struct acts one = {.cols = n_slots,
                                 .f32 = x->slots.f32 + t * n_slots,
                                 .codes = x->slots.codes + t * n_slots,
                                 .blocks = x->slots.blocks + t * x->m.n_blocks};
        for (int64_t row = 0; row < x->rows; row += COLUMN_TILE)
            k->mix_columns(&x->m, row, row + COLUMN_TILE < x->rows ? row + COLUMN_TILE : x->rows, &one, 1,
                           got + t * stride, stride);
    }
    expect_same(k, x, "in pieces", want, got, x->n_tokens * stride);
    assert_true(guarded_intact(got, bytes));
    guarded_free(got);
}

static void check_against_packed(struct rng *r, enum dtype type, int64_t rows, int64_t d_ff, int64_t n_tokens,
                                 enum holding h, int percent, enum filling f)
{
    struct mixing x = make_mixing(r, type, false, rows, d_ff, n_tokens, h, percent, f);
    struct packed packed = make_packed(type, rows, d_ff, x.weights);
    const int64_t stride = rows + 3;
    double *want = guarded((size_t)(n_tokens * stride) * sizeof *want);
    const struct kernels *k;
    kernels_scalar.matmul_partial(&packed, 0, packed.groups, &x.whole, n_tokens, want, stride);
    for (int i = 0; (k = kernels_available(i)); i++)
        check_product(k, &x, want, stride);
    guarded_free(want);
    guarded_free(packed.data);
    free_mixing(&x);
}

static const int percents[] = {0, 3, 10, 50, 100};
static const int64_t some_rows[] = {1, 64, 96, 128, 300, 576};
static const int64_t some_tokens[] = {1, 2, 7, 8, 9, 35};
#define COUNT(a) (sizeof(a) / sizeof *(a))

/* Under a sanitizer each two come together, not all three. */
static bool tried(int filling, int second, size_t third)
{
    return !SANITIZED || (filling + second + (int)third) % FILLINGS == 0;
}

static void equals_packed(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(weight_types); i++) {
        const enum dtype type = weight_types[i];
        const int block = dtype_block(type);
        struct rng r = {.state = i};
        for (int f = 0; f < FILLINGS; f++) {
            for (int h = 0; h < HOLDINGS; h++)
                for (size_t p = 0; p < COUNT(percents); p++)
                    if (tried(f, h, p))
                        check_against_packed(&r, type, 160, block == 256 ? 768 : 416, 3, (enum holding)h, percents[p],
                                             (enum filling)f);
            for (size_t j = 0; j < COUNT(some_rows); j++)
                if (tried(f, (int)j, i))
                    check_against_packed(&r, type, some_rows[j], block == 256 ? 256 : 288, 2, HOLD_SOME, 30,
                                         (enum filling)f);
            for (size_t j = 0; j < COUNT(some_tokens); j++)
                if (tried(f, (int)j, i))
                    check_against_packed(&r, type, 130, block == 256 ? 512 : 320, some_tokens[j], HOLD_ALL, 20,
                                         (enum filling)f);
        }
        check_against_packed(&r, type, 2304, 512, 2, HOLD_ALL, 10, FILL_RANDOM); /* more rows than a pass takes */
    }
}

/* A layer's width need not be whole blocks where weights are floats. */
static void float_layers_have_any_width(void **state)
{
    (void)state;
    struct rng r = {.state = 7};
    for (int i = 0; i < 3; i++)
        for (int h = 0; h < HOLDINGS; h++)
            check_against_packed(&r, weight_types[i], 70, 301, 2, (enum holding)h, 50, FILL_RANDOM);
}

/* sum of w * h over the segments, in double. */
static void check_against_doubles(const struct mixing *x, const double *got, int64_t stride)
{
    float *w = malloc((size_t)(x->rows * x->d_ff) * sizeof *w);
    for (int64_t j = 0; j < x->d_ff; j++)
        dequantize_row(x->m.type, x->weights + (size_t)j * dtype_row_bytes(x->m.type, x->rows), x->rows,
                       w + j * x->rows);
    for (int64_t t = 0; t < x->n_tokens; t++) {
        for (int64_t row = 0; row < x->rows; row++) {
            double sum = 0, size = 0;
            const double grid = (double)(x->d_ff / SUM_SEGMENT + 1) * 0x1p-31; /* what ending a segment may cost */
            for (int64_t j = 0; j < x->d_ff; j++) {
                const double term = (double)w[j * x->rows + row] * (double)x->whole.f32[t * x->d_ff + j];
                sum += term;
                size += fabs(term);
            }
            if (fabs(sum - got[t * stride + row]) > 1e-5 * size + grid)
                fail_msg("%s transposed: row %d is %g, expected %g", dtype_name(x->m.type), (int)row,
                         got[t * stride + row], sum);
        }
    }
    free(w);
}

static void check_transposed(struct rng *r, enum dtype type, int64_t rows, int64_t n_tokens, enum holding h,
                             int percent, enum filling f)
{
    struct mixing x = make_mixing(r, type, true, rows, 300, n_tokens, h, percent, f);
    const int64_t stride = rows + 5;
    double *want = guarded((size_t)(n_tokens * stride) * sizeof *want);
    const struct kernels *k;
    kernels_scalar.mix_columns(&x.m, 0, rows, &x.slots, n_tokens, want, stride);
    check_against_doubles(&x, want, stride);
    for (int i = 0; (k = kernels_available(i)); i++)
        check_product(k, &x, want, stride);
    guarded_free(want);
    free_mixing(&x);
}

static void transposed_is_right(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(weight_types); i++) {
        const enum dtype type = weight_types[i];
        const int block = dtype_block(type);
        struct rng r = {.state = 100 + i};
        if (i >= PLAIN_TYPES) { /* they differ from the others only in what dequantize_row says */
            check_transposed(&r, type, block == 256 ? 512 : 160, 2, HOLD_SOME, 20, FILL_RANDOM);
            continue;
        }
        for (int f = 0; f < FILLINGS; f++) {
            for (int h = 0; h < HOLDINGS; h++)
                for (size_t p = 0; p < COUNT(percents); p++)
                    if (tried(f, h, p))
                        check_transposed(&r, type, block == 256 ? 256 : 96, 2, (enum holding)h, percents[p],
                                         (enum filling)f);
            for (size_t j = 0; j < COUNT(some_tokens); j++)
                if (tried(f, (int)j, i))
                    check_transposed(&r, type, block == 256 ? 512 : 160, some_tokens[j], HOLD_ALL, 20,
                                     (enum filling)f);
        }
        check_transposed(&r, type, block == 256 ? 2304 : 2208, 1, HOLD_ALL, 10, FILL_RANDOM);
    }
}

/* No neuron held: zeros. */
static void nothing_held(void **state)
{
    (void)state;
    const struct acts none = {0};
    const struct kernels *k;
    for (int i = 0; (k = kernels_available(i)); i++) {
        struct neuron_columns m = {0};
        double y[2 * 200];
        memset(y, 0x5a, sizeof y);
        neuron_columns_shape(&m, DT_Q4_0, false, 200, 0, 0);
        assert_int_equal(neuron_columns_code_bytes(&m) + neuron_columns_scale_bytes(&m), 0);
        k->mix_columns(&m, 0, 200, &none, 2, y, 200);
        for (int j = 0; j < 2 * 200; j++)
            assert_true(y[j] == 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_packed),
        cmocka_unit_test(float_layers_have_any_width),
        cmocka_unit_test(transposed_is_right),
        cmocka_unit_test(nothing_held),
    };
    return cmocka_run_group_tests_name("columns", tests, NULL, NULL);
}
