/* What is no number stays none, by every table: a block that is quantised, a product with it, an activation, a score.
 * So whoever looks at the end of a layer's block sees it. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "kernels/tables.h"
#include "tests/conformance/kernels_suite.h"

static const float wrong[] = {NAN, -NAN, INFINITY, -INFINITY};
enum { WRONG = sizeof wrong / sizeof *wrong };

static const struct kernels *table(int i) { return kernels_available(i); }

static void quantised_blocks(void **state)
{
    (void)state;
    enum { COLS = 3 * ACT_BLOCK };
    for (int i = 0; table(i); i++) {
        for (int at = ACT_BLOCK; at < 2 * ACT_BLOCK; at++) {
            struct rng r = {.state = 5};
            struct acts whole = make_acts(&r, 1, COLS, FILL_RANDOM);
            float x[COLS];
            int8_t codes[COLS];
            struct act_block blocks[3];
            struct acts a = {.cols = COLS, .f32 = x, .codes = codes, .blocks = blocks};
            memcpy(x, whole.f32, sizeof x);
            x[at] = wrong[at % WRONG];
            x[ACT_BLOCK + 31] = at % 5 ? x[ACT_BLOCK + 31] : NAN;
            table(i)->quantize(&a, 0, 1);
            for (int b = 0; b < 3; b += 2) /* blocks beside it know nothing of it */
                assert_memory_equal(&blocks[b], &whole.blocks[b], sizeof *blocks);
            assert_true(isnan(blocks[1].scale) && isnan(blocks[1].scaled_sum));
            int sum = 0, low = 0;
            for (int c = 0; c < ACT_BLOCK; c++) {
                const int code = codes[ACT_BLOCK + c];
                assert_int_equal(code, isfinite(x[ACT_BLOCK + c]) ? 0 : 127);
                sum += code;
                low += c < 16 ? code : 0;
            }
            assert_true(blocks[1].minus_sum == -sum && blocks[1].minus_sum_low == -low);
            free_acts(&whole);
        }
    }
}

static void products(void **state)
{
    (void)state;
    enum { ROWS = 20, COLS = 512 };
    for (int i = 0; table(i); i++) {
        for (size_t t = 0; t < sizeof weight_types / sizeof *weight_types; t++) {
            struct rng r = {.state = 9};
            uint8_t *weights = make_weights(&r, weight_types[t], ROWS, COLS, FILL_RANDOM);
            struct packed m = make_packed(weight_types[t], ROWS, COLS, weights);
            struct acts a = make_acts(&r, 1, COLS, FILL_RANDOM);
            float y[ROWS];
            double sum[ROWS];
            a.f32[300] = wrong[t % WRONG];
            table(i)->quantize(&a, 0, 1);
            table(i)->matmul(&m, 0, m.groups, &a, 1, y, ROWS);
            table(i)->matmul_partial(&m, 0, m.groups, &a, 1, sum, ROWS);
            for (int row = 0; row < ROWS; row++)
                assert_true(!isfinite(y[row]) && !isfinite(sum[row]));
            free_acts(&a);
            guarded_free(m.data);
            free(weights);
        }
    }
}

/* A scale of MXFP4 that is none. */
static void exponents(void **state)
{
    (void)state;
    enum { ROWS = 20, COLS = 96 };
    for (int i = 0; table(i); i++) {
        struct rng r = {.state = 11};
        uint8_t *weights = make_weights(&r, DT_MXFP4, ROWS, COLS, FILL_RANDOM);
        weights[(7 * 3 + 1) * dtype_block_bytes(DT_MXFP4)] = 255;
        struct packed m = make_packed(DT_MXFP4, ROWS, COLS, weights);
        struct acts a = make_acts(&r, 1, COLS, FILL_RANDOM);
        float y[ROWS], w[COLS];
        table(i)->matmul(&m, 0, m.groups, &a, 1, y, ROWS);
        for (int row = 0; row < ROWS; row++)
            assert_int_equal(isnan(y[row]) != 0, row == 7);
        dequantize_row(DT_MXFP4, weights + 7 * dtype_row_bytes(DT_MXFP4, COLS), COLS, w);
        for (int c = 0; c < COLS; c++)
            assert_int_equal(isnan(w[c]) != 0, c / ACT_BLOCK == 1);
        free_acts(&a);
        guarded_free(m.data);
        free(weights);
    }
}

static void activations(void **state)
{
    (void)state;
    enum { N = 39 };
    for (int i = 0; table(i); i++) {
        for (int a = 0; a < ACTIVATIONS; a++) {
            for (int at = 0; at < N; at++) {
                float gate[N], up[N], out[N];
                for (int k = 0; k < N; k++)
                    gate[k] = up[k] = 1 + (float)k / N;
                gate[at] = NAN;
                table(i)->activate((enum activation)a, gate, up, N, out);
                for (int k = 0; k < N; k++)
                    assert_int_equal(isnan(out[k]) != 0, k == at);
                table(i)->activate((enum activation)a, up, gate, N, out);
                assert_true(isnan(out[at]));
                table(i)->activate((enum activation)a, NULL, gate, N, out);
                assert_true(isnan(out[at]));
            }
        }
    }
}

static void vectors(void **state)
{
    (void)state;
    enum { N = 39 };
    for (int i = 0; table(i); i++) {
        for (int at = 0; at < N; at++) {
            float x[N], y[N], out[N];
            uint16_t half[N];
            for (int k = 0; k < N; k++)
                x[k] = y[k] = (float)k - 7;
            x[at] = wrong[at % 2];
            memcpy(out, x, sizeof x);
            table(i)->softmax(out, N);
            assert_true(isnan(out[0]) && isnan(out[N - 1]) && isnan(out[at]));
            table(i)->rms_norm(x, y, N, 1e-5f, out);
            assert_true(isnan(out[0]) && isnan(out[at]));
            table(i)->layer_norm(x, y, NULL, N, 1e-5f, out);
            assert_true(isnan(out[0]) && isnan(out[at]));
            memcpy(out, x, sizeof x);
            table(i)->softcap(out, N, 30);
            assert_true(isnan(out[at]) || isinf(x[at]));
            table(i)->add(y, x, N);
            assert_true(isnan(y[at]) && !isnan(y[(at + 1) % N]));
            table(i)->to_f16(x, N, half);
            assert_true((half[at] & 0x7fff) > 0x7c00);
        }
    }
}

static void attention(void **state)
{
    (void)state;
    enum { DIM = 32, POSITIONS = 2 * KV_TILE };
    for (int i = 0; table(i); i++) {
        float q[DIM], scores[POSITIONS], mixed[DIM];
        uint16_t cache[KV_PAGE * DIM] = {0};
        const uint16_t *const page = cache;
        const int64_t begin = 0, end = POSITIONS;
        for (int d = 0; d < DIM; d++)
            q[d] = 1 + (float)d;
        cache[(DIM + 3) * KV_TILE + 5] = 0x7e00; /* position 21, value 3 */
        table(i)->attn_scores(q, DIM, 1, &page, DIM, 0, POSITIONS, 1, scores, POSITIONS);
        for (int p = 0; p < POSITIONS; p++)
            assert_int_equal(isnan(scores[p]) != 0, p == 21);
        const float inverse = table(i)->attn_weights(scores, POSITIONS, 0, -INFINITY);
        assert_true(isnan(inverse));
        memset(cache, 0, sizeof cache);
        table(i)->attn_mix(scores, POSITIONS, 0, 1, &begin, &end, &inverse, &page, DIM, mixed, DIM);
        for (int d = 0; d < DIM; d++)
            assert_true(isnan(mixed[d]));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(quantised_blocks), cmocka_unit_test(products),
                                       cmocka_unit_test(exponents),        cmocka_unit_test(activations),
                                       cmocka_unit_test(vectors),          cmocka_unit_test(attention)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
