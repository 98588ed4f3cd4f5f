/* Sums in messages on a GPU: the bytes that the scalar table packs, and what comes out of them again. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/cuda/stream.h"
#include "tests/conformance/kernels_suite.h"
#include "tests/gpu/memory.h"

enum { UNTOUCHED = 0xa5 };

static const struct kernels *scalar;
static struct gpu *gpu;

/* Sums of n tokens, on both sides, and their messages. */
struct message {
    int64_t n, d, blocks;      /* blocks of a token */
    long long *units;          /* [n, d] */
    double *sum;
    uint32_t *broken;
    uint8_t *width, *packed;   /* what the CPU gives */
    size_t bytes;
    struct gpu_sums sums;
    uint8_t *gpu_width, *gpu_packed;
    uint32_t *offset;
};

static struct message make_message(int64_t n, int64_t d)
{
    struct message m = {.n = n, .d = d, .blocks = (d + SUM_BLOCK - 1) / SUM_BLOCK,
                        .units = calloc((size_t)(n * d), sizeof *m.units),
                        .sum = calloc((size_t)(n * d), sizeof *m.sum),
                        .broken = calloc((size_t)n, sizeof *m.broken)};
    m.width = calloc((size_t)n, (size_t)m.blocks);
    m.packed = aligned_alloc(64, (size_t)(n * m.blocks) * 8 * SUM_BLOCK);
    return m;
}

static void put(struct message *m)
{
    const size_t blocks = (size_t)(m->n * m->blocks);
    m->sums.units = gpu_copy_of(m->units, (size_t)(m->n * m->d) * sizeof *m->units);
    m->sums.broken = gpu_copy_of(m->broken, (size_t)m->n * sizeof *m->broken);
    m->gpu_width = gpu_copy_of(NULL, blocks);
    m->gpu_packed = gpu_copy_of(NULL, blocks * 8 * SUM_BLOCK);
    m->offset = gpu_copy_of(NULL, (blocks + 1) * sizeof *m->offset);
}

static void release(struct message *m)
{
    gpu_release(m->sums.units);
    gpu_release(m->sums.broken);
    gpu_release(m->gpu_width);
    gpu_release(m->gpu_packed);
    gpu_release(m->offset);
    free(m->units);
    free(m->sum);
    free(m->broken);
    free(m->width);
    free(m->packed);
}

/* Integers of up to `bits` bits, so that each width occurs. */
static void fill(struct message *m, struct rng *r, int most_bits)
{
    for (int64_t i = 0; i < m->n * m->d; i++) {
        const int bits = i / SUM_BLOCK % 3 == 2 ? most_bits : (int)(i / SUM_BLOCK * 7) % (most_bits + 1);
        const long long v = (long long)(rng_next(r) >> 1 & ((1ull << bits) - 1));
        m->units[i] = rng_next(r) & 1 ? v : -v - (bits > 0);
        m->sum[i] = (double)m->units[i] * 0x1p-30;
    }
}

static void pack_by_cpu(struct message *m, bool f16)
{
    uint8_t *out = m->packed;
    for (int64_t t = 0; t < m->n; t++) {
        uint8_t *width = m->width + t * m->blocks;
        scalar->sum_widths(m->sum + t * m->d, m->d, f16, width);
        if (m->broken[t])
            memset(width, 8, (size_t)m->blocks);
        scalar->pack_sums(m->sum + t * m->d, m->d, width, out);
        for (int64_t b = 0; b < m->blocks; b++)
            out += SUM_BLOCK * width[b];
    }
    m->bytes = (size_t)(out - m->packed);
}

/* The bytes of token t, of which a broken one's are all NaN. */
static void expect_bytes(const struct message *m, const uint8_t *got, size_t at, int64_t t)
{
    for (int64_t b = 0; b < m->blocks; b++) {
        const int width = m->width[t * m->blocks + b];
        if (m->broken[t])
            for (int i = 0; i < SUM_BLOCK; i++)
                assert_true(isnan(((const double *)(const void *)(got + at))[i]));
        else if (memcmp(got + at, m->packed + at, (size_t)(SUM_BLOCK * width)) != 0)
            fail_msg("token %lld, block %lld of width %d differs", (long long)t, (long long)b, width);
        at += (size_t)(SUM_BLOCK * width);
    }
}

static void expect_packed(struct message *m, bool f16)
{
    const int64_t blocks = m->n * m->blocks;
    uint8_t *width = malloc((size_t)blocks), *got = aligned_alloc(64, (size_t)blocks * 8 * SUM_BLOCK);
    uint32_t *offset = malloc((size_t)(blocks + 1) * sizeof *offset);
    pack_by_cpu(m, f16);
    memset(got, UNTOUCHED, (size_t)blocks * 8 * SUM_BLOCK);
    gpu_write(m->gpu_packed, got, (size_t)blocks * 8 * SUM_BLOCK);
    gpu_pack_sums(gpu, &m->sums, m->n, m->d, f16, m->gpu_width, m->offset, m->gpu_packed);
    gpu_read(width, m->gpu_width, (size_t)blocks);
    gpu_read(offset, m->offset, (size_t)(blocks + 1) * sizeof *offset);
    gpu_read(got, m->gpu_packed, (size_t)blocks * 8 * SUM_BLOCK);
    assert_memory_equal(width, m->width, (size_t)blocks);
    assert_int_equal((int64_t)offset[blocks] * SUM_BLOCK, (int64_t)m->bytes);
    for (int64_t t = 0; t < m->n; t++)
        expect_bytes(m, got, (size_t)offset[t * m->blocks] * SUM_BLOCK, t);
    for (size_t i = m->bytes; i < (size_t)blocks * 8 * SUM_BLOCK; i++)
        assert_int_equal(got[i], UNTOUCHED); /* nothing is written behind */
    free(width);
    free(offset);
    free(got);
}

/* ---- packing ---- */

static const int64_t shapes[][2] = {{1, 1}, {1, 32}, {1, 300}, {1, 2100}, {3, 70}, {9, 576}, {33, 1000}};
enum { SHAPES = sizeof shapes / sizeof *shapes };

static void packs_the_bytes_of_the_cpu(void **state)
{
    static const int bits[] = {0, 22, 23, 24, 31, 32, 39, 40, 46, 47, 48, 51};
    struct rng r = {1};
    (void)state;
    for (int s = 0; s < SHAPES; s++) {
        for (size_t b = s == SHAPES - 1 ? 10 : 0; b < sizeof bits / sizeof *bits; b++) {
            struct message m = make_message(shapes[s][0], shapes[s][1]);
            fill(&m, &r, bits[b]);
            put(&m);
            expect_packed(&m, b % 2);
            expect_packed(&m, !(b % 2));
            release(&m);
        }
    }
}

/* The last integers of a width, and the first of the next. */
static void packs_what_just_fits(void **state)
{
    static const int last[] = {23, 31, 39, 47};
    (void)state;
    for (int i = 0; i < 4; i++) {
        for (int k = 0; k < 4; k++) {
            const long long edge = 1ll << last[i], values[] = {edge - 1, edge, -edge, -edge - 1};
            struct message m = make_message(1, 40);
            m.units[5] = values[k];
            m.units[36] = values[3 - k];
            for (int j = 0; j < 40; j++)
                m.sum[j] = (double)m.units[j] * 0x1p-30;
            put(&m);
            expect_packed(&m, false);
            release(&m);
        }
    }
}

/* 65504 is the largest f16, and rounding goes by way of f32: both roundings show in ties. */
static void rounds_to_f16_as_the_cpu(void **state)
{
    const long long one = 1ll << 30;
    const long long values[] = {65504 * one, -65504 * one, 65504 * one + 1, -65504 * one - 1, one + one / 2048,
                                one + one / 2048 + 1, one + 3 * one / 2048, one + one / 2048 - 1, 1, 32, 33, 47, 48, 96,
                                -1, 2049 * one, 2049 * one + 1, 2051 * one};
    enum { VALUES = sizeof values / sizeof *values };
    (void)state;
    for (int i = 0; i < VALUES; i++) {
        struct message m = make_message(1, 33);
        m.units[0] = values[i];
        m.units[32] = -values[i];
        for (int j = 0; j < 33; j++)
            m.sum[j] = (double)m.units[j] * 0x1p-30;
        put(&m);
        expect_packed(&m, true);
        release(&m);
    }
}

static void packs_broken_tokens_as_nan(void **state)
{
    struct rng r = {2};
    struct message m = make_message(3, 70);
    (void)state;
    fill(&m, &r, 30);
    m.broken[1] = 1;
    put(&m);
    expect_packed(&m, false);
    expect_packed(&m, true);
    release(&m);
}

/* ---- adding what was packed ---- */

static void expect_sums(const struct message *m, const double *sum)
{
    const size_t n = (size_t)(m->n * m->d);
    long long *got = malloc(n * sizeof *got);
    uint32_t *broken = malloc((size_t)m->n * sizeof *broken);
    gpu_read(got, m->sums.units, n * sizeof *got);
    gpu_read(broken, m->sums.broken, (size_t)m->n * sizeof *broken);
    for (int64_t t = 0; t < m->n; t++) {
        bool numbers = true;
        for (int64_t i = t * m->d; i < (t + 1) * m->d; i++) {
            numbers &= isfinite(sum[i]);
            if (isfinite(sum[i]) && (double)got[i] * 0x1p-30 != sum[i])
                fail_msg("sum %lld is %a, expected %a", (long long)i, (double)got[i] * 0x1p-30, sum[i]);
        }
        assert_int_equal(broken[t] != 0, !numbers);
    }
    free(got);
    free(broken);
}

/* m's message added to the sums of `to`, on both sides. */
static void add_message(const struct message *m, struct message *to)
{
    const uint8_t *in = m->packed;
    uint8_t *width = gpu_copy_of(m->width, (size_t)(m->n * m->blocks)), *packed = gpu_copy_of(m->packed, m->bytes);
    for (int64_t t = 0; t < m->n; t++) {
        scalar->add_packed(in, m->width + t * m->blocks, m->d, to->sum + t * m->d);
        for (int64_t b = 0; b < m->blocks; b++)
            in += SUM_BLOCK * m->width[t * m->blocks + b];
    }
    gpu_add_packed(gpu, &to->sums, m->n, m->d, width, to->offset, packed);
    expect_sums(to, to->sum);
    gpu_release(width);
    gpu_release(packed);
}

static void adds_what_was_packed(void **state)
{
    static const int bits[] = {20, 23, 30, 38, 46, 50};
    struct rng r = {3};
    (void)state;
    for (int s = 0; s < SHAPES; s++) {
        struct message to = make_message(shapes[s][0], shapes[s][1]);
        fill(&to, &r, 40);
        put(&to);
        for (int b = s == SHAPES - 1 ? 4 : 0; b < 6; b++) {
            struct message m = make_message(shapes[s][0], shapes[s][1]);
            fill(&m, &r, bits[b]);
            pack_by_cpu(&m, b % 2);
            add_message(&m, &to);
            release(&m);
        }
        release(&to);
    }
}

/* What a message may hold that is none of our sums: its token is broken, and no other. */
static void breaks_tokens_of_odd_messages(void **state)
{
    static const double odd[] = {NAN, INFINITY, -INFINITY, 0x1p31, -0x1p31, 1e300, 0x1p-31, 1 + 0x1p-31};
    (void)state;
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        struct message to = make_message(3, 40), m = make_message(3, 40);
        put(&to);
        m.sum[40 + 33] = odd[i];
        m.sum[80] = -0.0; /* the f64 are sent, and it is a number */
        m.sum[81] = 0x1p30 + 0.25;
        pack_by_cpu(&m, false);
        uint8_t *width = gpu_copy_of(m.width, 6), *packed = gpu_copy_of(m.packed, m.bytes);
        gpu_add_packed(gpu, &to.sums, 3, 40, width, to.offset, packed);
        memcpy(to.sum, m.sum, 120 * sizeof *m.sum);
        to.sum[40 + 33] = NAN;
        expect_sums(&to, to.sum);
        gpu_release(width);
        gpu_release(packed);
        release(&m);
        release(&to);
    }
}

static void breaks_tokens_of_f16_that_are_none(void **state)
{
    static const uint16_t odd[] = {0x7c00, 0xfc00, 0x7e01};
    (void)state;
    for (int i = 0; i < 3; i++) {
        struct message to = make_message(2, 32);
        uint16_t f16[2 * SUM_BLOCK] = {0x3c00, 0x8000, 0x0001, 0xfbff};
        const uint8_t width[2] = {2, 2};
        put(&to);
        f16[SUM_BLOCK + 7] = odd[i];
        void *widths = gpu_copy_of(width, sizeof width), *packed = gpu_copy_of(f16, sizeof f16);
        gpu_add_packed(gpu, &to.sums, 2, 32, widths, to.offset, packed);
        to.sum[0] = 1;
        to.sum[2] = 0x1p-24;
        to.sum[3] = -65504;
        to.sum[32 + 7] = NAN;
        expect_sums(&to, to.sum);
        gpu_release(widths);
        gpu_release(packed);
        release(&to);
    }
}

static void clears(void **state)
{
    struct rng r = {4};
    struct message m = make_message(3, 70);
    (void)state;
    fill(&m, &r, 40);
    m.broken[2] = 1;
    put(&m);
    gpu_clear_sums(gpu, &m.sums, 0, 70);
    gpu_clear_sums(gpu, &m.sums, 2, 70);
    memset(m.sum, 0, 140 * sizeof *m.sum);
    for (int i = 140; i < 210; i++)
        m.sum[i] = NAN; /* broken stays */
    expect_sums(&m, m.sum);
    gpu_clear_sums(gpu, &m.sums, 3, 70);
    memset(m.sum, 0, 210 * sizeof *m.sum);
    expect_sums(&m, m.sum);
    release(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(packs_the_bytes_of_the_cpu),    cmocka_unit_test(packs_what_just_fits),
        cmocka_unit_test(rounds_to_f16_as_the_cpu),      cmocka_unit_test(packs_broken_tokens_as_nan),
        cmocka_unit_test(adds_what_was_packed),          cmocka_unit_test(breaks_tokens_of_odd_messages),
        cmocka_unit_test(breaks_tokens_of_f16_that_are_none), cmocka_unit_test(clears),
    };
    gpu = gpu_for_test();
    if (!gpu)
        return 77;
    if (kernels_select("scalar", &scalar))
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
