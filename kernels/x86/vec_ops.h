/* The operations on vectors, in the words of *_vec.h; kernels.h says what each computes and in which order. */
#ifndef HEARTH_KERNELS_X86_VEC_OPS_H
#define HEARTH_KERNELS_X86_VEC_OPS_H

#include <math.h>

#include "base/exactmath.h"
#include "kernels/layout.h"
#include "kernels/scalar_parts.h"

enum { LANES = SUM_LANES };

/* exp_f32 in every lane: the same operations in the same order. */
static inline vf vf_exp(vf x)
{
    x = vf_max(vf_set(EXP_MIN), x); /* in this order NaN stays */
    x = vf_min(vf_set(EXP_MAX), x);
    vf shifted = vf_add(vf_mul(x, vf_set(EXP_LOG2E)), vf_set(EXP_MAGIC));
    vf n = vf_sub(shifted, vf_set(EXP_MAGIC));
    vf r = vf_fnma(n, vf_set(EXP_LN2_HI), x);
    r = vf_fnma(n, vf_set(EXP_LN2_LO), r);
    vf p = vf_fma(vf_set(EXP_C6), r, vf_set(EXP_C5));
    p = vf_fma(p, r, vf_set(EXP_C4));
    p = vf_fma(p, r, vf_set(EXP_C3));
    p = vf_fma(p, r, vf_set(EXP_C2));
    p = vf_fma(p, r, vf_set(1.0f));
    p = vf_fma(p, r, vf_set(1.0f));
    return vf_mul(p, vf_bits(vi_add(vi_shl32(vi_bits(shifted), 23), vi_set(127 << 23))));
}

static inline int64_t part_of(int64_t n, int64_t i) { return n - i < LANES ? n - i : LANES; }

/* Codes and sums of one block; scale is set. */
static inline void sum_block(const int8_t *codes, struct act_block *block)
{
    const __m256i ones = _mm256_set1_epi8(1);
    __m256i v = _mm256_loadu_si256((const __m256i *)codes);
    __m256i s = _mm256_madd_epi16(_mm256_maddubs_epi16(ones, v), _mm256_set1_epi16(1)); /* 8 sums of 4 */
    __m128i both = _mm_hadd_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
    both = _mm_hadd_epi32(both, both);
    int32_t low = _mm_extract_epi32(both, 0), high = _mm_extract_epi32(both, 1);
    block->scaled_sum = block->scale * (float)(low + high);
    block->minus_sum = -(low + high);
    block->minus_sum_low = -low;
}

static void sum_blocks(struct acts *a, int64_t token_begin, int64_t token_end)
{
    int64_t nb = a->cols / ACT_BLOCK;
    for (int64_t i = token_begin * nb; i < token_end * nb; i++)
        sum_block(a->codes + i * ACT_BLOCK, &a->blocks[i]);
}

static inline void quantize_block(const float *x, int8_t *codes, struct act_block *block)
{
    vf low = vf_load(x), high = vf_load(x + LANES);
    /* Without their sign floats are in the order of their bits, infinity and NaN above all numbers. */
    const int32_t top = vi_max_lanes(vi_max(vi_bits(vf_abs(low)), vi_bits(vf_abs(high))));
    float amax;
    memcpy(&amax, &top, sizeof amax);
    if (!(amax < INFINITY)) {
        quantize_broken(x, codes, block);
        return;
    }
    vf inverse = vf_set(amax >= 1e-30f ? 127.0f / amax : 0.0f);
    int32_t wide[ACT_BLOCK];
    vi a = vi_round(vf_mul(low, inverse)), b = vi_round(vf_mul(high, inverse));
    memcpy(wide, &a, sizeof a);
    memcpy(wide + LANES, &b, sizeof b);
    __m256i *w = (__m256i *)wide;
    __m256i p0 = _mm256_packs_epi32(_mm256_loadu_si256(w), _mm256_loadu_si256(w + 1));
    __m256i p1 = _mm256_packs_epi32(_mm256_loadu_si256(w + 2), _mm256_loadu_si256(w + 3));
    /* packs works within 128-bit halves: the permutation puts the groups of 4 back in order. */
    __m256i p = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(p0, p1), _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    _mm256_storeu_si256((__m256i *)codes, p);
    block->scale = amax / 127.0f;
    sum_block(codes, block);
}

static void quantize(struct acts *a, int64_t token_begin, int64_t token_end)
{
    int64_t nb = a->cols / ACT_BLOCK;
    for (int64_t i = token_begin * nb; i < token_end * nb; i++)
        quantize_block(a->f32 + i * ACT_BLOCK, a->codes + i * ACT_BLOCK, &a->blocks[i]);
}

enum { NORM_VECTORS = NORM_LANES / LANES };

/* NORM_LANES lanes, pairwise. */
static inline float add_norm_lanes(vf acc[NORM_VECTORS])
{
    for (int n = NORM_VECTORS / 2; n > 0; n /= 2)
        for (int i = 0; i < n; i++)
            acc[i] = vf_add(acc[i], acc[i + n]);
    return vf_add_lanes(acc[0]);
}

/* The sum of x, or of (x - mean)^2. */
static inline float norm_sum(bool squares, const float *x, float mean, int64_t n)
{
    vf acc[NORM_VECTORS];
    int64_t i = 0;
    for (int j = 0; j < NORM_VECTORS; j++)
        acc[j] = vf_zero();
    for (; i + NORM_LANES <= n; i += NORM_LANES) {
        for (int j = 0; j < NORM_VECTORS; j++) {
            const vf v = vf_sub(vf_load(x + i + j * LANES), vf_set(mean));
            acc[j] = squares ? vf_fma(v, v, acc[j]) : vf_add(acc[j], v);
        }
    }
    for (int j = 0; i < n; j++, i += LANES) {
        float rest[LANES] = {0}; /* an absent lane adds +0 */
        vf_store_part(rest, vf_sub(vf_load_part(x + i, part_of(n, i)), vf_set(mean)), part_of(n, i));
        acc[j] = squares ? vf_fma(vf_load(rest), vf_load(rest), acc[j]) : vf_add(acc[j], vf_load(rest));
    }
    return add_norm_lanes(acc);
}

static void rms_norm(const float *x, const float *w, int64_t n, float eps, float *out)
{
    vf s = vf_set(1.0f / sqrtf(norm_sum(true, x, 0, n) / (float)n + eps));
    for (int64_t i = 0; i < n; i += LANES) {
        int64_t m = part_of(n, i);
        vf_store_part(out + i, vf_mul(vf_mul(vf_load_part(x + i, m), s), vf_load_part(w + i, m)), m);
    }
}

static void layer_norm(const float *x, const float *w, const float *b, int64_t n, float eps, float *out)
{
    const float mean = norm_sum(false, x, 0, n) / (float)n;
    const vf s = vf_set(1.0f / sqrtf(norm_sum(true, x, mean, n) / (float)n + eps));
    for (int64_t i = 0; i < n; i += LANES) {
        const int64_t m = part_of(n, i);
        vf v = vf_mul(vf_sub(vf_load_part(x + i, m), vf_set(mean)), s), weight = vf_load_part(w + i, m);
        vf_store_part(out + i, b ? vf_fma(v, weight, vf_load_part(b + i, m)) : vf_mul(v, weight), m);
    }
}

static void rope(float *x, const float *cos_sin, int64_t n_heads, int64_t head_dim, int64_t half, bool neox)
{
    for (int64_t h = 0; h < n_heads; h++, x += head_dim) {
        int64_t i = 0;
        for (; neox && i + LANES <= half; i += LANES) {
            vf c = vf_load(cos_sin + i), s = vf_load(cos_sin + half + i);
            vf a = vf_load(x + i), b = vf_load(x + half + i);
            vf_store(x + i, vf_fma(a, c, vf_neg(vf_mul(b, s))));
            vf_store(x + half + i, vf_fma(a, s, vf_mul(b, c)));
        }
        for (; i < half; i++) {
            float *a = neox ? &x[i] : &x[2 * i], *b = neox ? &x[i + half] : &x[2 * i + 1];
            float c = cos_sin[i], s = cos_sin[half + i], a0 = *a, b0 = *b;
            *a = fmaf(a0, c, -(b0 * s));
            *b = fmaf(a0, s, b0 * c);
        }
    }
}

/* tanh_f32 in every lane. */
static inline vf vf_tanh(vf x)
{
    const vf e = vf_exp(vf_add(x, x));
    return vf_sub(vf_set(1.0f), vf_div(vf_set(2.0f), vf_add(e, vf_set(1.0f))));
}

static inline vf vf_gelu(vf g)
{
    const vf cube = vf_fma(vf_mul(vf_set(GELU_CUBE), g), g, vf_set(1.0f));
    const vf t = vf_tanh(vf_mul(vf_mul(vf_set(GELU_SCALE), g), cube));
    return vf_mul(vf_mul(vf_set(0.5f), g), vf_add(vf_set(1.0f), t));
}

static inline vf vf_swish_clamped(vf g)
{
    g = vf_min(vf_set(SWIGLU_LIMIT), g);
    return vf_div(g, vf_add(vf_set(1.0f), vf_exp(vf_neg(vf_mul(vf_set(SWIGLU_SLOPE), g)))));
}

/* What the gate, or up where there is none, becomes. */
static inline vf vf_activation(enum activation a, vf g)
{
    const vf r = vf_max(vf_zero(), g);
    switch (a) {
    case ACT_SILU: return vf_div(g, vf_add(vf_set(1.0f), vf_exp(vf_neg(g))));
    case ACT_GELU: return vf_gelu(g);
    case ACT_SWIGLU_CLAMPED: return vf_swish_clamped(g);
    case ACT_RELU2: return vf_mul(r, r);
    default: return r;
    }
}

/* What that is multiplied with. */
static inline vf vf_beside_gate(enum activation a, vf up)
{
    if (a == ACT_SWIGLU_CLAMPED)
        return vf_add(vf_min(vf_set(SWIGLU_LIMIT), vf_max(vf_set(-SWIGLU_LIMIT), up)), vf_set(1.0f));
    return a == ACT_DRELU ? vf_max(vf_zero(), up) : up;
}

static void activate(enum activation a, const float *gate, const float *up, int64_t n, float *out)
{
    for (int64_t i = 0; i < n; i += LANES) {
        const int64_t m = part_of(n, i);
        const vf u = vf_load_part(up + i, m), v = vf_activation(a, gate ? vf_load_part(gate + i, m) : u);
        vf_store_part(out + i, gate ? vf_mul(v, vf_beside_gate(a, u)) : v, m);
    }
}

static void softcap(float *x, int64_t n, float cap)
{
    const vf inverse = vf_set(1.0f / cap);
    for (int64_t i = 0; i < n; i += LANES) {
        const int64_t m = part_of(n, i);
        vf_store_part(x + i, vf_mul(vf_set(cap), vf_tanh(vf_mul(vf_load_part(x + i, m), inverse))), m);
    }
}

static void add(float *x, const float *y, int64_t n)
{
    for (int64_t i = 0; i < n; i += LANES) {
        int64_t m = part_of(n, i);
        vf_store_part(x + i, vf_add(vf_load_part(x + i, m), vf_load_part(y + i, m)), m);
    }
}

static void to_f16(const float *x, int64_t n, uint16_t *out)
{
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        vf_to_f16(out + i, vf_load(x + i));
    uint16_t rest[LANES];
    if (i < n) {
        vf_to_f16(rest, vf_load_part(x + i, n - i));
        memcpy(out + i, rest, (size_t)(n - i) * sizeof *out);
    }
}

/* n: a multiple of LANES. */
static void from_f16(const uint16_t *x, int64_t n, float *out)
{
    for (int64_t i = 0; i < n; i += LANES)
        vf_store(out + i, vf_of_f16(x + i));
}

#include "kernels/sums.h"

/* Several sums, so that no addition waits for the one before. */
static uint32_t read_words(const uint32_t *p, int64_t n)
{
    vi sum[4] = {vi_zero(), vi_zero(), vi_zero(), vi_zero()};
    uint32_t lane[LANES], all = 0;
    for (int64_t i = 0; i < n; i += 4 * LANES)
        for (int k = 0; k < 4; k++)
            sum[k] = vi_add(sum[k], vi_load(p + i + k * LANES));
    sum[0] = vi_add(vi_add(sum[0], sum[1]), vi_add(sum[2], sum[3]));
    memcpy(lane, &sum[0], sizeof lane);
    for (int i = 0; i < LANES; i++)
        all += lane[i];
    return all;
}

static float largest(const float *x, int64_t n)
{
    float max = x[0];
    int64_t whole = n / LANES * LANES;
    if (whole) {
        vf m = vf_load(x);
        for (int64_t i = LANES; i < whole; i += LANES)
            m = vf_max(m, vf_load(x + i));
        max = vf_max_lanes(m);
    }
    for (int64_t i = whole; i < n; i++)
        max = x[i] > max ? x[i] : max;
    return max;
}

static void softmax(float *x, int64_t n)
{
    const vf max = vf_set(largest(x, n));
    const int64_t whole = n / LANES * LANES;
    vf acc = vf_zero();
    for (int64_t i = 0; i < whole; i += LANES) {
        vf e = vf_exp(vf_sub(vf_load(x + i), max));
        vf_store(x + i, e);
        acc = vf_add(acc, e);
    }
    if (whole < n) {
        vf_store_part(x + whole, vf_exp(vf_sub(vf_load_part(x + whole, n - whole), max)), n - whole);
        acc = vf_add(acc, vf_load_part(x + whole, n - whole));
    }
    vf inverse = vf_set(1.0f / vf_add_lanes(acc));
    for (int64_t i = 0; i < n; i += LANES)
        vf_store_part(x + i, vf_mul(vf_load_part(x + i, part_of(n, i)), inverse), part_of(n, i));
}

#endif
