/* The kernels of gated delta nets: the scalar step against the formula in f64, every table against the scalar one bit
 * for bit, and nothing written beside what is given. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/tables.h"
#include "tests/conformance/kernels_suite.h"

static const int64_t sizes[] = {16, 32, 48, 64, 128, 256};
enum { SIZES = sizeof sizes / sizeof *sizes, TAPS = 4 };

/* A state in guarded memory, and what a token brings. */
struct head {
    int64_t size;
    float *s, *out, *q, *k, *v;
};

static float *copy_of(const float *x, int64_t n)
{
    float *to = guarded((size_t)n * sizeof *to);
    memcpy(to, x, (size_t)n * sizeof *to);
    return to;
}

static struct head make_head(uint64_t seed, int64_t size)
{
    struct rng r = {seed + (uint64_t)size};
    struct head h = {.size = size, .q = make_floats(&r, size, FILL_RANDOM), .k = make_floats(&r, size, FILL_RANDOM),
                     .v = make_floats(&r, size, FILL_RANDOM)};
    float *s = make_floats(&r, size * size, FILL_RANDOM);
    h.s = copy_of(s, size * size);
    h.out = copy_of(h.v, size);
    free(s);
    return h;
}

static void free_head(struct head *h)
{
    assert_true(guarded_intact(h->s, (size_t)(h->size * h->size) * sizeof *h->s));
    assert_true(guarded_intact(h->out, (size_t)h->size * sizeof *h->out));
    guarded_free(h->s);
    guarded_free(h->out);
    free(h->q);
    free(h->k);
    free(h->v);
}

static void step_is_the_formula(void **state)
{
    (void)state;
    for (int i = 0; i < SIZES; i++) {
        const int64_t n = sizes[i];
        struct head h = make_head(3, n);
        const double decay = 0.75, beta = 0.375;
        double *before = malloc((size_t)(n * n) * sizeof *before);
        for (int64_t j = 0; j < n * n; j++)
            before[j] = (double)h.s[j];
        kernels_scalar.delta_step(h.s, n, h.q, h.k, h.out, (float)decay, (float)beta, h.out);
        for (int64_t c = 0; c < n; c++) {
            double u = 0, sum = 0;
            for (int64_t row = 0; row < n; row++)
                u += (double)h.k[row] * decay * before[row * n + c];
            for (int64_t row = 0; row < n; row++) {
                const double now = decay * before[row * n + c] + (double)h.k[row] * beta * ((double)h.v[c] - u);
                assert_float_equal(h.s[row * n + c], now, 1e-5 * (double)n);
                sum += (double)h.q[row] * now;
            }
            assert_float_equal(h.out[c], sum, 1e-4 * (double)n);
        }
        free(before);
        free_head(&h);
    }
}

/* Two tokens, the second on the first's state. */
static void check_steps(const struct kernels *k, int64_t size)
{
    struct head want = make_head(7, size), got = make_head(7, size);
    for (int t = 0; t < 2; t++) {
        kernels_scalar.delta_step(want.s, size, want.q, want.k, want.out, 0.9f, 0.6f, want.out);
        k->delta_step(got.s, size, got.q, got.k, got.out, 0.9f, 0.6f, got.out);
    }
    assert_memory_equal(got.s, want.s, (size_t)(size * size) * sizeof *got.s);
    assert_memory_equal(got.out, want.out, (size_t)size * sizeof *got.out);
    free_head(&want);
    free_head(&got);
}

static void check_convolution(const struct kernels *k, int64_t n, int taps)
{
    struct rng r = {(uint64_t)(n + taps)};
    const size_t bytes = (size_t)n * sizeof(float);
    float *x = make_floats(&r, n * taps, FILL_RANDOM), *w = make_floats(&r, (n + 16) * taps, FILL_RANDOM);
    float *want = guarded(bytes), *got = guarded(bytes);
    const float *rows[TAPS];
    for (int i = 0; i < taps; i++)
        rows[i] = x + i * n;
    kernels_scalar.convolve(rows, w, n + 16, taps, n, want);
    k->convolve(rows, w, n + 16, taps, n, got);
    assert_memory_equal(got, want, bytes);
    assert_true(guarded_intact(got, bytes));
    double sum = 0; /* of one channel */
    for (int i = 0; i < taps; i++)
        sum += (double)rows[i][n - 1] * (double)w[i * (n + 16) + n - 1];
    assert_float_equal(want[n - 1], sum / (1 + exp(-sum)), 1e-5);
    guarded_free(want);
    guarded_free(got);
    free(x);
    free(w);
}

static void check_gates(const struct kernels *k, int64_t n)
{
    struct rng r = {(uint64_t)n};
    const size_t bytes = (size_t)n * sizeof(float);
    float *x = make_floats(&r, n, FILL_RANDOM), *g = make_floats(&r, n, FILL_RANDOM);
    float *want = copy_of(x, n), *got = copy_of(x, n);
    kernels_scalar.sigmoid_gate(want, g, n);
    k->sigmoid_gate(got, g, n);
    assert_memory_equal(got, want, bytes);
    assert_true(guarded_intact(got, bytes));
    assert_float_equal(want[n - 1], (double)x[n - 1] / (1 + exp(-(double)g[n - 1])),
                       1e-6 * fabs((double)x[n - 1]) + 1e-9);
    guarded_free(want);
    guarded_free(got);
    free(x);
    free(g);
}

static void tables_equal_reference(void **state)
{
    (void)state;
    const struct kernels *k;
    for (int i = 0; (k = kernels_available(i)); i++) {
        for (int j = 0; j < SIZES; j++) {
            check_steps(k, sizes[j]);
            check_convolution(k, sizes[j], TAPS);
            check_convolution(k, sizes[j], 2);
            check_gates(k, sizes[j]);
            check_gates(k, sizes[j] - 3);
        }
    }
}

/* What is no number stays none: in its column of the state and of what the head gives, or everywhere. */
static void nan_stays(void **state)
{
    (void)state;
    const struct kernels *k;
    for (int i = 0; (k = kernels_available(i)); i++) {
        struct head h = make_head(1, 32);
        h.out[5] = NAN;
        k->delta_step(h.s, 32, h.q, h.k, h.out, 1, 1, h.out);
        for (int c = 0; c < 32; c++)
            assert_int_equal(isnan(h.out[c]) != 0, c == 5);
        k->delta_step(h.s, 32, h.q, h.k, h.v, 0, 0.5f, h.out); /* forgetting all does not help */
        assert_true(isnan(h.out[5]));
        k->delta_step(h.s, 32, h.q, h.k, h.v, NAN, 0.5f, h.out);
        for (int c = 0; c < 32; c++)
            assert_true(isnan(h.out[c]));
        const float *rows[1] = {h.out};
        k->convolve(rows, h.q, 32, 1, 32, h.v);
        k->sigmoid_gate(h.q, h.out, 32);
        assert_true(isnan(h.v[0]) && isnan(h.q[31]));
        free_head(&h);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(step_is_the_formula), cmocka_unit_test(tables_equal_reference),
                                       cmocka_unit_test(nan_stays)};
    return cmocka_run_group_tests_name("delta nets", tests, NULL, NULL);
}
