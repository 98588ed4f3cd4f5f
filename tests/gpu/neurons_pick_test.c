/* Which neurons fire, on a GPU: pairs from values, and what is done value by value, as device/cpu/fire.c has it. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/cuda/neurons.h"
#include "tests/conformance/kernels_suite.h"
#include "tests/gpu/memory.h"

static struct gpu *gpu;
static const struct kernels *scalar;

static bool same_bits(float a, float b) { return memcmp(&a, &b, sizeof a) == 0 || (isnan(a) && isnan(b)); }

static void expect_same(const char *what, const float *want, const float *got, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (!same_bits(want[i], got[i]))
            fail_msg("%s: value %d is %a, expected %a", what, (int)i, (double)got[i], (double)want[i]);
}

/* Values of both signs, zeros, what is equal to `bound`, and what is no number. */
static float *make_values(struct rng *r, int64_t n, float bound)
{
    float *v = malloc((size_t)n * sizeof *v);
    for (int64_t i = 0; i < n; i++) {
        const uint64_t kind = rng_next(r) % 16;
        v[i] = kind == 0 ? NAN : kind == 1 ? bound : kind == 2 ? -0.0f : kind == 3 ? -NAN : rng_float(r) * 3;
    }
    return v;
}

/* What a launch has made: pairs, each once, and nothing else. */
static void check_picked(const struct gpu_pairs *pairs, const float *value, int64_t stride, int64_t rows, int64_t n,
                         float bound, const float *bound_of, bool keep)
{
    const size_t most = (size_t)(rows * n);
    int32_t *row = malloc(most * 4), *token = malloc(most * 4);
    float *gate = malloc(most * 4);
    uint8_t *seen = calloc(most, 1);
    uint32_t found, expected = 0;
    gpu_read(&found, pairs->n, sizeof found);
    gpu_read(row, pairs->row, most * 4);
    gpu_read(token, pairs->token, most * 4);
    gpu_read(gate, pairs->gate, most * 4);
    for (int64_t i = 0; i < rows * n; i++)
        expected += !(value[i % n * stride + i / n] <= (bound_of ? bound_of[i / n] : bound));
    assert_int_equal(found, expected);
    for (uint32_t i = 0; i < found; i++) {
        assert_in_range(row[i], 0, rows - 1);
        assert_in_range(token[i], 0, n - 1);
        const float v = value[token[i] * stride + row[i]];
        assert_false(v <= (bound_of ? bound_of[row[i]] : bound));
        assert_false(seen[row[i] * n + token[i]]++);
        if (keep)
            assert_true(same_bits(v, gate[i]));
        if (i && n <= 32 && row[i] != row[i - 1]) /* a row's pairs follow each other */
            for (int64_t t = 0; t < n; t++)
                assert_true(!seen[row[i] * n + t] || t == token[i]);
    }
    for (size_t i = found * 4; i < most * 4; i++) {
        assert_int_equal(((uint8_t *)row)[i], 0xa5);
        assert_int_equal(((uint8_t *)token)[i], 0xa5);
    }
    for (size_t i = keep ? found * 4 : 0; i < most * 4; i++)
        assert_int_equal(((uint8_t *)gate)[i], 0xa5);
    free(row);
    free(token);
    free(gate);
    free(seen);
}

static void check_pick(int64_t rows, int64_t n, bool by_row, bool keep)
{
    struct rng r = {.state = (uint64_t)(rows * 100 + n)};
    const int64_t stride = rows + 3;
    const float bound = 0.25f;
    const size_t most = (size_t)(rows * n);
    float *value = make_values(&r, n * stride, bound), *bound_of = make_values(&r, rows, bound);
    float *value_on_gpu = gpu_copy_of(value, (size_t)(n * stride) * sizeof *value);
    float *bound_on_gpu = gpu_copy_of(bound_of, (size_t)rows * sizeof *bound_of);
    struct gpu_counts counts, *counted = gpu_copy_of(&(struct gpu_counts){.flagged = 3, .live = 4}, sizeof *counted);
    struct gpu_pairs pairs = {gpu_copy_of(NULL, 4), gpu_copy_of(NULL, most * 4), gpu_copy_of(NULL, most * 4),
                              gpu_copy_of(NULL, most * 4), NULL};
    struct gpu_clearing clearing = gpu_to_clear(), none = {0};
    gpu_pick(gpu, value_on_gpu, stride, rows, n, bound, by_row ? bound_on_gpu : NULL, keep, &pairs, counted, &clearing);
    gpu_expect_cleared(&clearing);
    check_picked(&pairs, value, stride, rows, n, bound, by_row ? bound_of : NULL, keep);
    uint32_t found;
    gpu_read(&found, pairs.n, sizeof found);
    gpu_read(&counts, counted, sizeof counts);
    assert_int_equal(counts.flagged, 3 + found);
    assert_int_equal(counts.live, 4);
    assert_int_equal(counts.rows_read, 0);
    gpu_pick(gpu, value_on_gpu, stride, rows, n, bound, by_row ? bound_on_gpu : NULL, keep, &pairs, NULL, &none);
    check_picked(&pairs, value, stride, rows, n, bound, by_row ? bound_of : NULL, keep);
    gpu_release(pairs.n);
    gpu_release(pairs.row);
    gpu_release(pairs.token);
    gpu_release(pairs.gate);
    gpu_release(counted);
    gpu_release(value_on_gpu);
    gpu_release(bound_on_gpu);
    free(value);
    free(bound_of);
}

static void pairs_are_picked(void **state)
{
    static const int64_t rows[] = {1, 31, 32, 300, 777}, tokens[] = {1, 2, 7, 32, 33, 70};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (size_t j = 0; j < sizeof tokens / sizeof *tokens; j++)
            check_pick(rows[i], tokens[j], (i + j) % 2, (i + j) % 3 == 0);
    /* To where one thread block does not pick for one token any more. */
    for (int64_t many = 16383; many <= 16385; many++)
        check_pick(many, 1, many % 2, true);
}

static void nothing_to_pick_from(void **state)
{
    (void)state;
    uint32_t found;
    struct gpu_pairs pairs = {.n = gpu_copy_of(NULL, 4)};
    struct gpu_clearing clearing = gpu_to_clear();
    gpu_pick(gpu, NULL, 0, 0, 1, 0, NULL, false, &pairs, NULL, &clearing);
    gpu_expect_cleared(&clearing);
    gpu_read(&found, pairs.n, sizeof found);
    assert_int_equal(found, 0);
    gpu_release(pairs.n);
}

static void products_of_estimates(void **state)
{
    (void)state;
    enum { ROWS = 301, TOKENS = 3, STRIDE = 310 };
    const size_t bytes = TOKENS * STRIDE * sizeof(float);
    struct rng r = {.state = 1};
    for (int a = 0; a < ACTIVATIONS; a++) {
        float *gate = make_values(&r, TOKENS * STRIDE, 1), *up = make_values(&r, TOKENS * STRIDE, 1), *line[4];
        float *got = malloc(bytes), *gate_on_gpu = gpu_copy_of(gate, bytes), *up_on_gpu = gpu_copy_of(up, bytes);
        float *line_on_gpu[4];
        for (int i = 0; i < 4; i++) {
            line[i] = make_floats(&r, ROWS, FILL_RANDOM);
            line_on_gpu[i] = gpu_copy_of(line[i], ROWS * sizeof(float));
        }
        gpu_estimate_products(gpu, (enum activation)a, gate_on_gpu, up_on_gpu, STRIDE, ROWS, TOKENS, line_on_gpu[0],
                              line_on_gpu[1], line_on_gpu[2], line_on_gpu[3]);
        gpu_read(got, gate_on_gpu, bytes);
        for (int t = 0; t < TOKENS; t++) {
            float *product = gate + t * STRIDE, *other = up + t * STRIDE;
            for (int i = 0; i < ROWS; i++) {
                product[i] = product[i] * line[0][i] + line[1][i];
                other[i] = other[i] * line[2][i] + line[3][i];
            }
            scalar->activate((enum activation)a, product, other, ROWS, product);
            for (int i = 0; i < ROWS; i++)
                product[i] = fabsf(product[i]);
        }
        expect_same("products of estimates", gate, got, TOKENS * STRIDE);
        gpu_release(gate_on_gpu);
        gpu_release(up_on_gpu);
        for (int i = 0; i < 4; i++) {
            gpu_release(line_on_gpu[i]);
            free(line[i]);
        }
        free(gate);
        free(up);
        free(got);
    }
}

/* Slots in another order than rows, with some that are nobody's. */
static int32_t *make_slots(int64_t rows)
{
    int32_t *slot = malloc((size_t)rows * sizeof *slot);
    for (int64_t i = 0; i < rows; i++)
        slot[i] = (int32_t)(rows + 4 - i);
    return slot;
}

static void check_activate(enum activation a, bool has_gate, bool has_slots)
{
    enum { ROWS = 301, TOKENS = 3, STRIDE = 310, H_STRIDE = 320 };
    const size_t bytes = TOKENS * STRIDE * sizeof(float), h_bytes = TOKENS * H_STRIDE * sizeof(float);
    struct rng r = {.state = 2};
    float *gate = make_values(&r, TOKENS * STRIDE, 1), *up = make_values(&r, TOKENS * STRIDE, 1);
    float *want = malloc(h_bytes), *got = malloc(h_bytes), *h = gpu_copy_of(NULL, h_bytes);
    float *gate_on_gpu = gpu_copy_of(gate, bytes), *up_on_gpu = gpu_copy_of(up, bytes);
    int32_t *slot = make_slots(ROWS), *slot_on_gpu = gpu_copy_of(slot, ROWS * sizeof *slot);
    memset(want, 0xa5, h_bytes);
    for (int t = 0; t < TOKENS; t++)
        for (int i = 0; i < ROWS; i++)
            scalar->activate(a, has_gate ? &gate[t * STRIDE + i] : NULL, &up[t * STRIDE + i], 1,
                             &want[t * H_STRIDE + (has_slots ? slot[i] : i)]);
    struct gpu_clearing clearing = gpu_to_clear();
    gpu_activate(gpu, a, has_gate ? gate_on_gpu : NULL, up_on_gpu, STRIDE, ROWS, TOKENS, has_slots ? slot_on_gpu : NULL,
                 &(struct acts){.cols = H_STRIDE, .f32 = h}, false, &clearing);
    gpu_expect_cleared(&clearing);
    gpu_read(got, h, h_bytes);
    expect_same(activation_name(a), want, got, TOKENS * H_STRIDE);
    gpu_release(gate_on_gpu);
    gpu_release(up_on_gpu);
    gpu_release(slot_on_gpu);
    gpu_release(h);
    free(gate);
    free(up);
    free(slot);
    free(want);
    free(got);
}

static void dense_activations(void **state)
{
    (void)state;
    for (int a = 0; a < ACTIVATIONS; a++)
        for (int has_gate = a == ACT_DRELU; has_gate < 2; has_gate++)
            check_activate((enum activation)a, has_gate, (a + has_gate) % 2);
}

static void guests_activations_find_their_slots(void **state)
{
    (void)state;
    enum { ROWS = 500, TOKENS = 37, STRIDE = 512 };
    const size_t h_bytes = TOKENS * STRIDE * sizeof(float);
    struct rng r = {.state = 3};
    uint32_t first[TOKENS + 1] = {0}, *index = malloc(ROWS * TOKENS * sizeof *index);
    float *value = malloc(ROWS * TOKENS * sizeof *value), *want = malloc(h_bytes), *got = malloc(h_bytes);
    int32_t *slot = make_slots(ROWS);
    memset(want, 0xa5, h_bytes);
    for (int t = 0; t < TOKENS; t++) {
        uint32_t n = first[t];
        /* Some have none, among them first and last. */
        for (uint32_t i = 0; i < ROWS && t % 5 && t != TOKENS - 1; i++) {
            if (rng_next(&r) % 10)
                continue;
            index[n] = i;
            want[t * STRIDE + slot[i]] = value[n++] = rng_float(&r);
        }
        first[t + 1] = n;
    }
    const uint32_t n_pairs = first[TOKENS];
    float *h = gpu_copy_of(NULL, h_bytes), *value_on_gpu = gpu_copy_of(value, n_pairs * sizeof *value);
    uint32_t *first_on_gpu = gpu_copy_of(first, sizeof first),
             *index_on_gpu = gpu_copy_of(index, n_pairs * sizeof *index);
    int32_t *slot_on_gpu = gpu_copy_of(slot, ROWS * sizeof *slot);
    gpu_place_live(gpu, first_on_gpu, index_on_gpu, value_on_gpu, TOKENS, n_pairs, slot_on_gpu, h, STRIDE);
    gpu_place_live(gpu, first_on_gpu, index_on_gpu, value_on_gpu, TOKENS, 0, slot_on_gpu, h, STRIDE);
    gpu_read(got, h, h_bytes);
    expect_same("guests", want, got, TOKENS * STRIDE);
    gpu_release(h);
    gpu_release(value_on_gpu);
    gpu_release(first_on_gpu);
    gpu_release(index_on_gpu);
    gpu_release(slot_on_gpu);
    free(index);
    free(value);
    free(slot);
    free(want);
    free(got);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pairs_are_picked),
        cmocka_unit_test(nothing_to_pick_from),
        cmocka_unit_test(products_of_estimates),
        cmocka_unit_test(dense_activations),
        cmocka_unit_test(guests_activations_find_their_slots),
    };
    if (!(gpu = gpu_for_test())) {
        printf("SKIP: no device\n");
        return 77;
    }
    if (kernels_select("scalar", &scalar))
        return 1;
    return cmocka_run_group_tests_name("gpu neurons, picking", tests, NULL, NULL);
}
