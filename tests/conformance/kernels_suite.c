#include "tests/conformance/kernels_suite.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/tables.h"

const enum dtype weight_types[WEIGHT_TYPES] = {
    DT_F32,  DT_F16,    DT_BF16,   DT_Q4_0,  DT_Q4_1,    DT_Q5_0,   DT_Q5_1,  DT_Q8_0,    DT_Q2_K,
    DT_Q3_K, DT_Q4_K,   DT_Q5_K,   DT_Q6_K,  DT_IQ4_NL,  DT_IQ4_XS, DT_MXFP4, DT_IQ2_XXS, DT_IQ2_XS,
    DT_TQ2_0, DT_IQ3_S, DT_IQ3_XXS, DT_IQ2_S, DT_IQ1_S,  DT_IQ1_M,  DT_TQ1_0,
};

uint64_t rng_next(struct rng *r)
{
    uint64_t z = (r->state += 0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

float rng_float(struct rng *r) { return (float)(int64_t)rng_next(r) * 0x1p-63f; }

/* A finite f16. */
static uint16_t scale_bits(struct rng *r, enum filling f)
{
    uint16_t mantissa = rng_next(r) & 0x3ff, sign = (rng_next(r) & 1) << 15;
    switch (f) {
    case FILL_EXTREME: return sign | 0x7bff;                         /* 65504 */
    case FILL_TINY: return rng_next(r) & 1 ? sign | mantissa : 0;    /* subnormal, or zero */
    default: return (uint16_t)(sign | (rng_next(r) % 8 + 4) << 10 | mantissa);
    }
}

/* The exponent of MXFP4: products stay below the largest f32. */
static uint8_t scale_exponent(struct rng *r, enum filling f)
{
    return (uint8_t)(f == FILL_EXTREME ? 188 : f == FILL_TINY ? rng_next(r) % 4 : 119 + rng_next(r) % 8);
}

/* Where a block keeps its f16 scale, and its f16 minimum (-1: none). */
static void scale_offsets(enum dtype type, int *d, int *m)
{
    *d = type == DT_Q2_K    ? 80
         : type == DT_Q3_K  ? 108
         : type == DT_Q6_K  ? 208
         : type == DT_TQ1_0 ? 52
         : type == DT_TQ2_0 ? 64
                            : 0;
    *m = type == DT_Q2_K ? 82 : type == DT_Q4_1 || type == DT_Q5_1 || type == DT_Q4_K || type == DT_Q5_K ? 2 : -1;
}

static void fill_block(struct rng *r, enum dtype type, uint8_t *p, enum filling f)
{
    int d, m, n = dtype_block_bytes(type);
    uint8_t same = rng_next(r) & 1 ? 0xff : 0x00; /* every code the largest, or the smallest */
    for (int i = 0; i < n; i++)
        p[i] = f == FILL_EXTREME ? same : (uint8_t)rng_next(r);
    if (f == FILL_EXTREME && type == DT_Q8_0)
        memset(p, same ? 0x7f : 0x80, (size_t)n);
    if (type == DT_MXFP4) {
        if (f == FILL_EXTREME)
            memset(p, same ? 0x77 : 0xff, (size_t)n); /* 12, -12 */
        p[0] = scale_exponent(r, f);
        return;
    }
    if (type == DT_IQ1_M) { /* d is in the upper 4 bits of four words */
        const uint16_t bits = scale_bits(r, f);
        for (int i = 0; i < 4; i++)
            p[49 + 2 * i] = (uint8_t)((p[49 + 2 * i] & 15) | (bits >> 4 * i & 15) << 4);
        return;
    }
    scale_offsets(type, &d, &m);
    uint16_t bits = scale_bits(r, f);
    memcpy(p + d, &bits, 2);
    if (m >= 0) {
        bits = scale_bits(r, f);
        memcpy(p + m, &bits, 2);
    }
}

static void fill_float(struct rng *r, enum dtype type, uint8_t *p, enum filling f)
{
    float v = rng_float(r) * (f == FILL_EXTREME ? 1000.0f : f == FILL_TINY ? 1e-39f : 1.0f);
    uint16_t half = scale_bits(r, f);
    if (type == DT_F32)
        memcpy(p, &v, 4);
    else if (type == DT_F16)
        memcpy(p, &half, 2);
    else
        memcpy(p, (uint8_t *)&v + 2, 2); /* the upper half of an f32 is a bf16 */
}

uint8_t *make_weights(struct rng *r, enum dtype type, int64_t rows, int64_t cols, enum filling f)
{
    size_t n = (size_t)rows * dtype_row_bytes(type, cols), step = (size_t)dtype_block_bytes(type);
    uint8_t *w = malloc(n);
    for (size_t i = 0; i < n; i += step) {
        if (dtype_is_quantised(type))
            fill_block(r, type, w + i, f);
        else
            fill_float(r, type, w + i, f);
    }
    return w;
}

float *make_floats(struct rng *r, int64_t n, enum filling f)
{
    float *x = malloc((size_t)n * sizeof *x), sign = rng_next(r) & 1 ? 1.0f : -1.0f;
    for (int64_t i = 0; i < n; i++) {
        if (f == FILL_RANDOM)
            x[i] = rng_float(r) * 4.0f;
        else if (f == FILL_EXTREME)
            x[i] = rng_next(r) % 4 ? sign * 1e4f : rng_float(r) * 1e4f; /* most codes are 127 or -127 */
        else
            x[i] = i / ACT_BLOCK % 2 ? 0.0f : rng_float(r) * (rng_next(r) % 2 ? 1e-38f : 1e-3f);
    }
    return x;
}

enum { GUARD = 256, GUARD_BYTE = 0xa5 };

void *guarded(size_t size)
{
    uint8_t *p = aligned_alloc(64, (size + 2 * GUARD + 63) / 64 * 64);
    memset(p, GUARD_BYTE, GUARD);
    memset(p + GUARD, 0, size);
    memset(p + GUARD + size, GUARD_BYTE, GUARD);
    return p + GUARD;
}

bool guarded_intact(const void *p, size_t size)
{
    const uint8_t *before = (const uint8_t *)p - GUARD, *after = (const uint8_t *)p + size;
    for (int i = 0; i < GUARD; i++)
        if (before[i] != GUARD_BYTE || after[i] != GUARD_BYTE)
            return false;
    return true;
}

void guarded_free(void *p)
{
    if (p)
        free((uint8_t *)p - GUARD);
}

struct packed make_packed(enum dtype type, int64_t rows, int64_t cols, const uint8_t *weights)
{
    struct packed m;
    packed_shape(&m, type, rows, cols);
    m.data = guarded(packed_bytes(&m));
    packed_fill(&m, 0, m.groups, weights, dtype_row_bytes(type, cols), NULL);
    return m;
}

struct acts make_acts(struct rng *r, int64_t n_tokens, int64_t cols, enum filling f)
{
    struct acts a = {.cols = cols, .f32 = make_floats(r, n_tokens * cols, f)};
    a.codes = guarded((size_t)(n_tokens * cols));
    a.blocks = guarded((size_t)(n_tokens * cols / ACT_BLOCK) * sizeof *a.blocks);
    if (cols % ACT_BLOCK == 0)
        kernels_scalar.quantize(&a, 0, n_tokens);
    return a;
}

void free_acts(struct acts *a)
{
    free(a->f32);
    guarded_free(a->codes);
    guarded_free(a->blocks);
}

struct lane_acts make_lanes(const struct kernels *k, const struct acts *a, int64_t n_tokens, bool quantised)
{
    struct lane_acts x;
    lane_acts_shape(&x, a->cols);
    const size_t n_codes = (size_t)(n_tokens * lane_acts_codes(&x));
    const size_t words = 4 * (size_t)(n_tokens * lane_acts_blocks(&x));
    if (quantised) {
        void *arrays[5];
        for (int i = 0; i < 5; i++) {
            arrays[i] = guarded(i ? words : n_codes);
            memset(arrays[i], 0x55, i ? words : n_codes); /* what spread leaves out shows */
        }
        x.codes = arrays[0];
        x.scale = arrays[1];
        x.scaled_sum = arrays[2];
        x.minus_sum = arrays[3];
        x.minus_sum_low = arrays[4];
    }
    k->spread(a, 0, n_tokens / 2, &x);
    k->spread(a, n_tokens / 2, n_tokens, &x);
    return x;
}

bool lanes_intact(const struct lane_acts *x, int64_t n_tokens)
{
    const size_t words = 4 * (size_t)(n_tokens * lane_acts_blocks(x));
    return !x->codes || (guarded_intact(x->codes, (size_t)(n_tokens * lane_acts_codes(x))) &&
                         guarded_intact(x->scale, words) && guarded_intact(x->scaled_sum, words) &&
                         guarded_intact(x->minus_sum, words) && guarded_intact(x->minus_sum_low, words));
}

void free_lanes(struct lane_acts *x)
{
    guarded_free(x->codes);
    guarded_free(x->scale);
    guarded_free(x->scaled_sum);
    guarded_free(x->minus_sum);
    guarded_free(x->minus_sum_low);
}
