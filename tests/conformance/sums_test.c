/* Packed partial sums: every table packs to the same bytes, those that kernels/sums.h says; what is exact comes back
 * bit for bit, whatever it is, and in the fewest bytes. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/kernels.h"
#include "tests/conformance/kernels_suite.h"

enum { MOST = 4096, MOST_BLOCKS = MOST / SUM_BLOCK };

static bool is_integer(double x, int bytes)
{
    const double units = ldexp(x, 30), most = ldexp(1, 8 * bytes - 1);
    return units == floor(units) && units >= -most && units < most && !(x == 0 && signbit(x));
}

static bool all(const double *x, int64_t n, bool f16, int width)
{
    for (int64_t i = 0; i < n; i++)
        if (f16 ? !(fabs(x[i]) <= 65504) : !is_integer(x[i], width))
            return false;
    return true;
}

static int expected_width(const double *x, int64_t n, bool f16)
{
    if (f16 && all(x, n, true, 2))
        return 2;
    for (int width = 3; width <= 6; width++)
        if (all(x, n, false, width))
            return width;
    return 8;
}

/* Value i of a packed block, byte by byte. */
static double unpacked(const uint8_t *block, int width, int i)
{
    const int low = width == 3 ? 2 : 4, high = width - low;
    uint64_t bits = 0;
    double value;
    if (width == 8) {
        memcpy(&value, block + 8 * i, sizeof value);
        return value;
    }
    for (int k = 0; k < low; k++)
        bits |= (uint64_t)block[low * i + k] << (8 * k);
    for (int k = 0; k < high; k++)
        bits |= (uint64_t)block[low * SUM_BLOCK + high * i + k] << (8 * (low + k));
    bits <<= 64 - 8 * width;
    return ldexp((double)((int64_t)bits / ((int64_t)1 << (64 - 8 * width))), -30);
}

static double f64_of_f16(const uint8_t *p)
{
    const int bits = p[0] | p[1] << 8, exponent = bits >> 10 & 31, fraction = bits & 1023;
    const double size = exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24);
    return bits >> 15 ? -size : size;
}

static void expect_bits(const char *what, const char *name, int64_t i, double want, double got)
{
    if (memcmp(&want, &got, sizeof want))
        fail_msg("%s, %s: value %lld is %a, expected %a", name, what, (long long)i, got, want);
}

/* x rounded to f16 is within half a step of 11 bits, or of the subnormals. */
static void expect_rounded(const char *name, int64_t i, double x, double got)
{
    if (!(fabs(got - x) <= fmax(fabs(x) * 0x1.001p-11, 0x1.001p-25)))
        fail_msg("%s: value %lld is %a, expected %a to 11 bits", name, (long long)i, got, x);
}

static void check_row(const struct kernels *k, const double *x, int64_t n, bool f16)
{
    const int64_t blocks = (n + SUM_BLOCK - 1) / SUM_BLOCK;
    uint8_t *width = guarded((size_t)blocks);
    size_t bytes = 0;
    k->sum_widths(x, n, f16, width);
    assert_true(guarded_intact(width, (size_t)blocks));
    for (int64_t b = 0; b < blocks; b++) {
        const int64_t left = n - b * SUM_BLOCK;
        assert_int_equal(width[b], expected_width(x + b * SUM_BLOCK, left < SUM_BLOCK ? left : SUM_BLOCK, f16));
        bytes += (size_t)width[b] * SUM_BLOCK;
    }
    uint8_t *packed = guarded(bytes), *at = packed;
    double *sum = guarded((size_t)n * sizeof *sum), *twice = guarded((size_t)n * sizeof *twice);
    k->pack_sums(x, n, width, packed);
    for (int64_t i = 0; i < n; i++) {
        sum[i] = -0.0; /* that adds nothing, not even to a -0 */
        twice[i] = 1.5;
    }
    k->add_packed(packed, width, n, sum);
    k->add_packed(packed, width, n, twice);
    for (int64_t i = 0; i < n; i++) {
        const int w = width[i / SUM_BLOCK];
        if (w == 2)
            expect_rounded(k->name, i, x[i], f64_of_f16(at + 2 * (i % SUM_BLOCK)));
        else
            expect_bits("packed", k->name, i, x[i], unpacked(at, w, (int)(i % SUM_BLOCK)));
        const double back = w == 2 ? f64_of_f16(at + 2 * (i % SUM_BLOCK)) : x[i];
        expect_bits("added to -0", k->name, i, back, sum[i]);
        expect_bits("added", k->name, i, 1.5 + back, twice[i]);
        at += i % SUM_BLOCK == SUM_BLOCK - 1 ? SUM_BLOCK * w : 0;
    }
    for (int64_t i = n; i < blocks * SUM_BLOCK && width[blocks - 1] != 8; i++)
        assert_int_equal(at[(width[blocks - 1] < 4 ? 2 : 4) * (i % SUM_BLOCK)], 0);
    assert_true(guarded_intact(packed, bytes) && guarded_intact(sum, (size_t)n * sizeof *sum));
    guarded_free(width);
    guarded_free(packed);
    guarded_free(sum);
    guarded_free(twice);
}

static void each_table(const double *x, int64_t n, bool f16)
{
    const struct kernels *k;
    for (int i = 0; (k = kernels_available(i)); i++)
        check_row(k, x, n, f16);
}

/* The largest and smallest integers of every width, and one more; then what is no integer. */
static const double edges[] = {
    0, 0x1p-30, -0x1p-30, 0x1p-7 - 0x1p-30, -0x1p-7, 0x1p-7, -0x1p-7 - 0x1p-30, 2 - 0x1p-30, -2, 2, -2 - 0x1p-30,
    512 - 0x1p-30, -512, 512, -512 - 0x1p-30, 0x1p17 - 0x1p-30, 0x1p17, -0x1p17 + 0x1p-30, -0x1p17 - 0x1p-30,
    -0.0, 0x1p-31, 0x3p-31, 0.1, -1e-40, 0x1p-1074, 1e6, 0x1p21, -0x1p21, 0x1p22, 0x1p23, -0x1p23, 0x1p51, 0x1.8p52,
    -0x1.8p52, 0x1p63, -0x1p63, 1e300, -1e308, 0x1.fffffffffffffp1023, INFINITY, -INFINITY, 65504, -65504, 65505, 65520,
    -65519.99, 65536, 0x1p-24, 0x1p-25, 0x1p-14, 0x1.ffcp-15, 100.03,
};

static void edges_come_back(void **state)
{
    (void)state;
    enum { EDGES = sizeof edges / sizeof *edges };
    const double nan_bits = NAN;
    double x[2 * SUM_BLOCK];
    for (int i = 0; i <= EDGES; i++) {
        for (int at = 0; at < 2 * SUM_BLOCK; at += 9) {
            for (int j = 0; j < 2 * SUM_BLOCK; j++)
                x[j] = ldexp(j - 20, -30);
            x[at] = i < EDGES ? edges[i] : nan_bits;
            each_table(x, at + 1, false);
            each_table(x, 2 * SUM_BLOCK, false);
            if (i < EDGES - 1)
                each_table(x, 2 * SUM_BLOCK, true);
        }
    }
    memcpy(x, edges, sizeof edges < sizeof x ? sizeof edges : sizeof x);
    each_table(x, EDGES < 2 * SUM_BLOCK ? EDGES : 2 * SUM_BLOCK, false);
}

/* Any 64 bits; they include NaN with any payload. Signalling ones become quiet by addition, as in any sum. */
static double any_bits(struct rng *r)
{
    uint64_t bits = rng_next(r);
    double x;
    if ((bits >> 52 & 2047) == 2047)
        bits |= UINT64_C(1) << 51;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static void random_rows_come_back(void **state)
{
    (void)state;
    static const int64_t lengths[] = {1, 20, 31, 32, 33, 576, 1000, MOST};
    struct rng r = {.state = 5};
    double *x = malloc(MOST * sizeof *x);
    assert_non_null(x);
    for (int round = 0; round < 60; round++) {
        const int64_t n = lengths[round % 8];
        int scale = 0;
        for (int64_t i = 0; i < n; i++) {
            scale = i % SUM_BLOCK ? scale : (int)(rng_next(&r) % 24) - 12;
            x[i] = ldexp(rint(ldexp((double)rng_float(&r), 30 + scale)), -30);
            if (rng_next(&r) % 500 == 0)
                x[i] = any_bits(&r);
        }
        each_table(x, n, false);
        each_table(x, n, true);
    }
    for (int64_t i = 0; i < MOST; i++)
        x[i] = any_bits(&r);
    each_table(x, MOST, false);
    free(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(edges_come_back),
        cmocka_unit_test(random_rows_come_back),
    };
    return cmocka_run_group_tests_name("packed sums", tests, NULL, NULL);
}
