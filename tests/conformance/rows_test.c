/* The conformance suite of neurons' rows: every table's dot_rows has the bits of the packed matrix's matmul, whole or
 * parted in planes; its estimates have the bits of the scalar reference, and are near the product.
 *
 * rows_test --bench [TYPE] prints the speed instead. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/layout.h"
#include "kernels/rows.h"
#include "kernels/tables.h"
#include "tests/conformance/kernels_suite.h"

static void each_table(void (*check)(const struct kernels *k))
{
    const struct kernels *k;
    for (int i = 0; (k = kernels_available(i)); i++)
        check(k);
}

static struct neuron_rows make_rows(enum dtype type, int64_t rows, int64_t cols, bool planes, const uint8_t *weights,
                                    const int32_t *ids)
{
    struct neuron_rows m;
    neuron_rows_shape(&m, type, rows, cols, planes);
    assert_int_equal(m.top_bytes % 64 + m.rest_bytes % 64, 0);
    m.top = guarded((size_t)rows * m.top_bytes);
    m.rest = planes ? guarded((size_t)rows * m.rest_bytes) : NULL;
    neuron_rows_fill(&m, 0, rows / 2, weights, dtype_row_bytes(type, cols), ids);
    neuron_rows_fill(&m, rows / 2, rows, weights, dtype_row_bytes(type, cols), ids);
    return m;
}

static void free_rows(struct neuron_rows *m)
{
    assert_true(guarded_intact(m->top, (size_t)m->rows * m->top_bytes));
    assert_true(!m->rest || guarded_intact(m->rest, (size_t)m->rows * m->rest_bytes));
    guarded_free(m->top);
    guarded_free(m->rest);
}

static bool same_bits(float a, float b) { return memcmp(&a, &b, sizeof a) == 0 || (isnan(a) && isnan(b)); }

enum { ROWS = 37, TOKENS = 5, PAIRS = ROWS * TOKENS };

/* Some pairs in ascending order: of each token the same rows (chance 0: all), or each pair with a chance of its own. */
static int64_t choose_pairs(struct rng *r, uint64_t chance, int64_t n_tokens, int32_t *row, int32_t *token)
{
    int64_t n = 0;
    for (int32_t i = 0; i < ROWS; i++) {
        for (int32_t t = 0; t < n_tokens; t++) {
            if (chance && rng_next(r) % chance)
                continue;
            row[n] = i;
            token[n++] = t;
        }
    }
    return n;
}

/* `m` holds the rows ids[] of the packed matrix whose product is y [TOKENS, 2 * ROWS]. */
static void check_dots(const struct kernels *k, const struct neuron_rows *m, const int32_t *ids,
                       const struct lane_acts *x, const float *y, struct rng *r)
{
    static const uint64_t chances[] = {0, 2, 7, 40};
    int32_t row[PAIRS], token[PAIRS];
    for (int64_t n_tokens = 1; n_tokens <= TOKENS; n_tokens += TOKENS - 1) {
        for (size_t c = 0; c < sizeof chances / sizeof *chances; c++) {
            const int64_t n = choose_pairs(r, chances[c], n_tokens, row, token);
            float *got = guarded((size_t)n * sizeof *got);
            k->dot_rows(m, x, row, token, n, got);
            for (int64_t i = 0; i < n; i++) {
                const float want = y[token[i] * 2 * ROWS + ids[row[i]]];
                if (!same_bits(want, got[i]))
                    fail_msg("%s, %s%s, %d columns: row %d times token %d is %a, expected %a", k->name,
                             dtype_name(m->type), m->planes ? " in planes" : "", (int)m->cols, row[i], token[i],
                             (double)got[i], (double)want);
            }
            assert_true(guarded_intact(got, (size_t)n * sizeof *got));
            guarded_free(got);
        }
    }
}

static void check_estimates(const struct kernels *k, const struct neuron_rows *m, const struct lane_acts *x)
{
    const int64_t stride = ROWS + 2;
    const size_t bytes = (size_t)(TOKENS * stride) * sizeof(float);
    float *want = guarded(bytes), *got = guarded(bytes);
    kernels_scalar.estimate_rows(m, 0, ROWS, x, TOKENS, want, stride);
    k->estimate_rows(m, 0, 6, x, TOKENS, got, stride);
    k->estimate_rows(m, 6, ROWS, x, 1, got + 6, stride);
    k->estimate_rows(m, 6, ROWS, x, TOKENS, got + 6, stride);
    for (int64_t i = 0; i < TOKENS * stride; i++)
        if (!same_bits(want[i], got[i]))
            fail_msg("%s, %s, %d columns: estimate %d is %a, expected %a", k->name, dtype_name(m->type), (int)m->cols,
                     (int)i, (double)got[i], (double)want[i]);
    assert_true(guarded_intact(got, bytes));
    guarded_free(want);
    guarded_free(got);
}

static void check_type(const struct kernels *k, enum dtype type, int64_t cols, enum filling f)
{
    struct rng r = {.state = (uint64_t)(cols * 31 + type * 7 + f)};
    uint8_t *weights = make_weights(&r, type, 2 * ROWS, cols, f);
    struct packed packed = make_packed(type, 2 * ROWS, cols, weights);
    struct acts a = make_acts(&r, TOKENS, cols, f);
    struct lane_acts x = make_lanes(k, &a, TOKENS, dtype_is_quantised(type));
    float *y = malloc(TOKENS * 2 * ROWS * sizeof *y);
    int32_t ids[ROWS], straight[ROWS];
    for (int32_t i = 0; i < ROWS; i++) {
        ids[i] = 2 * i + (int32_t)(rng_next(&r) % 2);
        straight[i] = i;
    }
    kernels_scalar.matmul(&packed, 0, packed.groups, &a, TOKENS, y, 2 * ROWS);
    for (int planes = 0; planes <= dtype_has_planes(type); planes++) {
        for (int picked = 0; picked < 2; picked++) {
            struct neuron_rows m = make_rows(type, ROWS, cols, planes, weights, picked ? ids : NULL);
            check_dots(k, &m, picked ? ids : straight, &x, y, &r);
            if (planes)
                check_estimates(k, &m, &x);
            free_rows(&m);
        }
    }
    free(y);
    assert_true(lanes_intact(&x, TOKENS));
    free_lanes(&x);
    guarded_free(packed.data);
    free_acts(&a);
    free(weights);
}

static void check_all(const struct kernels *k)
{
    static const int64_t some_cols[] = {32, 64, 96, 256, 512, 576, 768, 1024};
    for (size_t i = 0; i < sizeof weight_types / sizeof *weight_types; i++)
        for (size_t j = 0; j < sizeof some_cols / sizeof *some_cols; j++)
            for (int f = 0; f < FILLINGS; f++)
                if (some_cols[j] % dtype_block(weight_types[i]) == 0)
                    check_type(k, weight_types[i], some_cols[j], f);
    check_type(k, DT_F32, 45, FILL_RANDOM);
    check_type(k, DT_F16, 45, FILL_RANDOM);
    check_type(k, DT_BF16, 3, FILL_RANDOM);
}

static void rows_equal_matmul(void **state)
{
    (void)state;
    each_table(check_all);
}

/* Bytes that a row takes for 256 columns: of the types with grids and the ternary ones more than in the file, whose
 * points become codes. */
static size_t bytes_of_256(enum dtype type)
{
    switch (type) {
    case DT_IQ3_S:
    case DT_IQ3_XXS: return 138;
    case DT_IQ2_XS:
    case DT_IQ2_S:
    case DT_IQ1_M: return 114;
    case DT_IQ2_XXS:
    case DT_IQ1_S: return 106;
    case DT_TQ1_0:
    case DT_TQ2_0: return 80;
    default: return dtype_row_bytes(type, 256);
    }
}

/* About as many bytes as in the file: within a line, and what K types' wider scales take. */
static void rows_take_the_bytes_of_the_file(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof weight_types / sizeof *weight_types; i++) {
        for (int64_t cols = 256; cols <= 4096; cols += 256) {
            struct neuron_rows whole, parted;
            const size_t file = bytes_of_256(weight_types[i]) * (size_t)cols / 256;
            neuron_rows_shape(&whole, weight_types[i], 3, cols, false);
            assert_in_range(whole.top_bytes, file, file + file / 20 + 63);
            assert_int_equal(whole.rest_bytes, 0);
            if (!dtype_has_planes(weight_types[i]))
                continue;
            neuron_rows_shape(&parted, weight_types[i], 3, cols, true);
            assert_in_range(parted.top_bytes + parted.rest_bytes, whole.top_bytes, whole.top_bytes + 64);
            const struct layout l = layout_of(weight_types[i]);
            const size_t rest = (size_t)(l.low_bits + l.high_bits - dtype_top_bits(weight_types[i]));
            assert_in_range(parted.rest_bytes, rest * (size_t)cols / 8, rest * (size_t)cols / 8 + 63);
        }
    }
    assert_int_equal(dtype_top_bits(DT_Q8_0), 3);
    assert_int_equal(dtype_top_bits(DT_Q4_0), 2);
    assert_true(dtype_has_planes(DT_Q3_K));
    assert_false(dtype_has_planes(DT_Q2_K));
    assert_false(dtype_has_planes(DT_F16));
}

static void put_f16(uint8_t *p, float f)
{
    const uint16_t h = f16_of_f32(f);
    memcpy(p, &h, sizeof h);
}

/* About normal. */
static float bell(struct rng *r)
{
    float sum = 0;
    for (int i = 0; i < 12; i++)
        sum += rng_float(r);
    return sum / 2;
}

/* Normal weights as Q4_0 or Q8_0, the types that are quantised by a rule of one line. */
static uint8_t *bell_weights(struct rng *r, enum dtype type, int64_t rows, int64_t cols)
{
    uint8_t *w = malloc((size_t)rows * dtype_row_bytes(type, cols)), *p = w;
    for (int64_t b = 0; b < rows * cols / ACT_BLOCK; b++, p += dtype_block_bytes(type)) {
        float v[ACT_BLOCK], largest = 0;
        for (int c = 0; c < ACT_BLOCK; c++) {
            v[c] = bell(r);
            largest = fabsf(v[c]) > fabsf(largest) ? v[c] : largest;
        }
        const float d = type == DT_Q4_0 ? largest / -8 : fabsf(largest) / 127;
        put_f16(p, d);
        for (int c = 0; c < ACT_BLOCK; c++) {
            const int code = (int)lrintf(v[c] / d), nibble = code + 8 > 15 ? 15 : code + 8;
            if (type == DT_Q8_0)
                p[2 + c] = (uint8_t)code;
            else
                p[2 + c % 16] = (uint8_t)(c < 16 ? nibble : p[2 + c % 16] | nibble << 4);
        }
    }
    return w;
}

static double correlation(const float *a, const float *b, int n)
{
    double sa = 0, sb = 0, aa = 0, bb = 0, ab = 0;
    for (int i = 0; i < n; i++) {
        sa += (double)a[i];
        sb += (double)b[i];
    }
    for (int i = 0; i < n; i++) {
        const double x = (double)a[i] - sa / n, y = (double)b[i] - sb / n;
        aa += x * x;
        bb += y * y;
        ab += x * y;
    }
    return ab / sqrt(aa * bb);
}

static void estimates_are_near_the_product(void **state)
{
    (void)state;
    enum { N = 200, COLS = 1024 };
    static const enum dtype types[] = {DT_Q4_0, DT_Q8_0};
    static const double least[] = {0.90, 0.97};
    for (size_t i = 0; i < 2; i++) {
        struct rng r = {.state = i};
        uint8_t *weights = bell_weights(&r, types[i], N, COLS);
        struct acts a = make_acts(&r, 1, COLS, FILL_RANDOM);
        struct lane_acts x = make_lanes(&kernels_scalar, &a, 1, true);
        struct neuron_rows m = make_rows(types[i], N, COLS, true, weights, NULL);
        float near[N], exact[N];
        int32_t row[N], token[N] = {0};
        for (int32_t j = 0; j < N; j++)
            row[j] = j;
        kernels_scalar.dot_rows(&m, &x, row, token, N, exact);
        kernels_scalar.estimate_rows(&m, 0, N, &x, 1, near, N);
        const double c = correlation(near, exact, N);
        if (c < least[i] || c > 0.9999)
            fail_msg("%s: estimates and products correlate by %g", dtype_name(types[i]), c);
        free_rows(&m);
        free_lanes(&x);
        free_acts(&a);
        free(weights);
    }
}

int main(int argc, char **argv)
{
    if (argc >= 2 && strcmp(argv[1], "--bench") == 0) {
        const struct kernels *k;
        for (int i = 0; (k = kernels_available(i)); i++)
            bench_rows(k, argc > 2 ? argv[2] : NULL);
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_equal_matmul),
        cmocka_unit_test(rows_take_the_bytes_of_the_file),
        cmocka_unit_test(estimates_are_near_the_product),
    };
    return cmocka_run_group_tests_name("rows", tests, NULL, NULL);
}
