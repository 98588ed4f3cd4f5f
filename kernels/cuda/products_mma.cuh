/* What a lane of a warp has of a product by the tensor cores' m16n8k32: 16 rows times 8 tokens, k = one block. A packed
 * block is such a tile of rows already: lane (g, t) = (lane / 4, lane % 4) needs columns 4t .. 4t+3 and 16 + 4t .. of
 * two rows, which are quads t and t + 4, and the same columns of token g. Of the result it holds its two rows, tokens
 * 2t and 2t + 1. Which of the 16 rows are its own is free: 2g and 2g + 1, so that it reads both at once. Value e is row
 * 2g + e / 2, token 2t + e % 2. */
#ifndef HEARTH_KERNELS_CUDA_PRODUCTS_MMA_CUH
#define HEARTH_KERNELS_CUDA_PRODUCTS_MMA_CUH

#include "kernels/cuda/products.cuh"

namespace {

enum { HELD = 4 }; /* values of a tile that a lane holds */

/* An integer sum n below 2^22 in the low bits of 1.5 * 2^23 is that f32 plus n: one operation converts it. */
#define SUM_START 0x4b400000
#define SUM_START_F32 12582912.0f

/* What a lane reads of a block for its two rows, which lie beside each other: x of a pair is row 2g's, y the next's. */
template <enum dtype T> struct fragment {
    static constexpr int low = layout_t<T>::low_bits == 8 ? 2 : 1, high = layout_t<T>::high_bits ? 1 : 0;
    uint2 word[low + high];
    uint32_t scale[layout_t<T>::row_scales]; /* both rows' */
};

/* Of weights in the GPU's memory, or of those that were brought into SHARED memory. */
template <bool SHARED, class V> DEVICE V load_pair(const uint8_t *p)
{
    if constexpr (SHARED)
        return *(const V *)p;
    else
        return __ldg((const V *)p);
}

/* The block at p. */
template <enum dtype T, bool SHARED> DEVICE void load_fragment(struct fragment<T> &f, const uint8_t *p, int g, int t)
{
    using l = layout_t<T>;
    const uint8_t *words = p + l::scale_bytes + 8 * g;
#pragma unroll
    for (int i = 0; i < l::row_scales; i++)
        f.scale[i] = l::byte_scales ? load_pair<SHARED, uint16_t>(p + i * ROW_GROUP + 2 * g)
                                    : load_pair<SHARED, uint32_t>(p + 2 * i * ROW_GROUP + 4 * g);
    f.word[0] = load_pair<SHARED, uint2>(words + WORD_BYTES * (l::low_bits == 2 ? t % 2 : t));
    if constexpr (l::low_bits == 8)
        f.word[1] = load_pair<SHARED, uint2>(words + WORD_BYTES * (t + 4));
    if constexpr (l::high_bits != 0)
        f.word[1] = load_pair<SHARED, uint2>(words + WORD_BYTES * (l::low_bits + (l::high_bits == 2 ? t % 2 : 0)));
}

/* f16 d, dmin of both rows, of a K type's super-block that begins at p. */
template <enum dtype T, bool SHARED> DEVICE void load_super_pairs(uint32_t supers[2], const uint8_t *p, int g)
{
    supers[0] = load_pair<SHARED, uint32_t>(p + 4 * g);
    if constexpr (layout_t<T>::minima)
        supers[1] = load_pair<SHARED, uint32_t>(p + 2 * ROW_GROUP + 4 * g);
}

/* Of n pairs of f16, or of bytes, those of row 2g + h. */
template <bool BYTES, int N> DEVICE void row_of_pairs(uint32_t to[2], const uint32_t *pairs, int h)
{
#pragma unroll
    for (int i = 0; i < N; i++)
        to[i] = pairs[i] >> (h * (BYTES ? 8 : 16)) & (BYTES ? 0xff : 0xffff);
}

template <enum dtype T> DEVICE void row_scales(uint32_t scale[2], const struct fragment<T> &f, int h)
{
    row_of_pairs<layout_t<T>::byte_scales, layout_t<T>::row_scales>(scale, f.scale, h);
}

template <enum dtype T> DEVICE void row_supers(uint32_t to[2], const uint32_t supers[2], int h)
{
    row_of_pairs<false, layout_t<T>::minima ? 2 : 1>(to, supers, h);
}

/* Codes that have an offset are multiplied as signed bytes, shifted so far that the offset is their sign: sums are so
 * many times the exact ones. What is looked up has its sign. */
template <enum dtype T> struct signed_codes {
    using l = layout_t<T>;
    static constexpr bool shifted = l::offset != 0, are = shifted || l::looked_up;
    static constexpr int shift = shifted ? 7 - l::offset_shift : 0;
};

/* Quads t and t + 4 of one row, as they are multiplied. */
template <enum dtype T>
DEVICE void quads_of(const struct gpu_book &book, const uint32_t *word, int t, uint32_t *first, uint32_t *second)
{
    using l = layout_t<T>;
    const int pair = 2 * (t / 2); /* where 2 bits of quad t lie in a byte; those of t + 4 lie 4 bits above */
    if constexpr (l::low_bits == 8) {
        *first = word[0];
        *second = word[1];
    } else {
        const uint32_t low = l::low_bits == 4 ? word[0] : word[0] >> pair;
        const uint32_t mask = l::low_bits == 4 ? 0x0f0f0f0f : 0x03030303;
        *first = low & mask;
        *second = low >> 4 & mask;
    }
    if constexpr (l::high_bits != 0) {
        const uint32_t high = word[1] >> (l::high_bits == 2 ? pair : t);
        const uint32_t mask = l::high_bits == 2 ? 0x03030303 : 0x01010101;
        *first |= (high & mask) << l::low_bits;
        *second |= (high >> 4 & mask) << l::low_bits;
    }
    if constexpr (l::looked_up)
        gpu_look_up<(l::low_bits + l::high_bits < 4)>(book, first, second);
    if constexpr (signed_codes<T>::shifted) {
        *first = *first << signed_codes<T>::shift ^ 0x80808080;
        *second = *second << signed_codes<T>::shift ^ 0x80808080;
    }
}

/* What all tiles of tokens use of a block: the rows' quads, scales and minima (of both halves, where they have
 * some). */
template <enum dtype T> struct rows {
    uint32_t a[4];
    float scale[2][2], min[2][2];
};

template <enum dtype T> DEVICE struct rows<T> rows_of(const struct gpu_book &book, const struct fragment<T> &f, int t)
{
    using l = layout_t<T>;
    struct rows<T> to;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        uint32_t scale[2], word[2];
        row_scales<T>(scale, f, h);
        for (int i = 0; i < f.low + f.high; i++)
            word[i] = h ? f.word[i].y : f.word[i].x;
        quads_of<T>(book, word, t, &to.a[h], &to.a[2 + h]);
#pragma unroll
        for (int i = 0; i < 2; i++) {
            to.scale[h][i] = l::k ? __int2float_rn(k_scale<T>(scale, i)) : gpu_block_scale<l>(scale[0]);
            to.min[h][i] = !l::minima ? 0
                           : l::k     ? __int2float_rn(k_min<T>(scale, i))
                                      : f32_of_half_bits((uint16_t)scale[l::row_scales - 1]);
        }
    }
    return to;
}

/* A block of x: quads t and t + 4 of token g; of tokens 2t and 2t + 1 their scale and scaled sums (of each half, where
 * they have scales). */
struct tile {
    int2 code;
    float2 scale, scaled_sum[2];
};

template <enum dtype T> DEVICE float scaled_sum_of(const struct act_block &x, int h)
{
    return layout_t<T>::halves ? scaled_half(x, h) : x.scaled_sum;
}

/* What two tokens' blocks give a tile beside their codes. */
template <enum dtype T>
DEVICE void set_tile(struct tile &x, const struct act_block &first, const struct act_block &second)
{
    x.scale = make_float2(first.scale, second.scale);
    for (int h = 0; h < (layout_t<T>::halves ? 2 : 1); h++) {
        x.scaled_sum[h] = make_float2(scaled_sum_of<T>(first, h), scaled_sum_of<T>(second, h));
    }
}

template <enum dtype T> DEVICE float sum_of(int c)
{
    constexpr float unit = 1.0f / (1 << signed_codes<T>::shift);
    if constexpr (unit == 1)
        return __fsub_rn(__int_as_float(c), SUM_START_F32);
    else
        return __fmaf_rn(__int_as_float(c), unit, -SUM_START_F32 * unit);
}

/* The exact sums, of K types times their scales: whole numbers below 2^24, so that f32 does not round. */
template <enum dtype T> DEVICE void multiply(const struct rows<T> &w, const struct tile &x, float sum[HELD])
{
    using l = layout_t<T>;
    constexpr bool S = signed_codes<T>::are;
    const uint32_t b[2] = {(uint32_t)x.code.x, (uint32_t)x.code.y};
    int c[HELD] = {SUM_START, SUM_START, SUM_START, SUM_START};
    if constexpr (!l::halves) {
        mma_m16n8k32<S>(c, w.a[0], w.a[1], w.a[2], w.a[3], b[0], b[1]);
#pragma unroll
        for (int e = 0; e < HELD; e++)
            sum[e] = l::k ? __fmul_rn(sum_of<T>(c[e]), w.scale[e / 2][0]) : sum_of<T>(c[e]);
    } else {
        int d[HELD] = {SUM_START, SUM_START, SUM_START, SUM_START};
        mma_m16n8k32<S>(c, w.a[0], w.a[1], 0, 0, b[0], 0);
        mma_m16n8k32<S>(d, 0, 0, w.a[2], w.a[3], 0, b[1]);
#pragma unroll
        for (int e = 0; e < HELD; e++)
            sum[e] = __fmaf_rn(sum_of<T>(d[e]), w.scale[e / 2][1], __fmul_rn(sum_of<T>(c[e]), w.scale[e / 2][0]));
    }
}

/* Adds a block: to acc, or of K types to the a and minima of its half super-block. */
template <enum dtype T>
DEVICE void add_tile(const struct rows<T> &w, const struct tile &x, float acc[HELD], float minima[HELD])
{
    using l = layout_t<T>;
    float sum[HELD];
    multiply<T>(w, x, sum);
#pragma unroll
    for (int e = 0; e < HELD; e++) {
        const float scale = e % 2 ? x.scale.y : x.scale.x;
        acc[e] = __fmaf_rn(sum[e], l::k ? scale : __fmul_rn(w.scale[e / 2][0], scale), acc[e]);
    }
#pragma unroll
    for (int h = 0; h < (l::halves ? 2 : 1) && l::minima; h++) {
        float *to = l::k ? minima : acc;
#pragma unroll
        for (int e = 0; e < HELD; e++)
            to[e] = __fmaf_rn(w.min[e / 2][h], e % 2 ? x.scaled_sum[h].y : x.scaled_sum[h].x, to[e]);
    }
}

/* acc with a half super-block, whose sums start anew. supers: f16 d, dmin of both rows. */
template <enum dtype T>
DEVICE void close_half(const struct gpu_book &book, const uint32_t supers[2], float a[HELD], float minima[HELD],
                       float acc[HELD])
{
#pragma unroll
    for (int e = 0; e < HELD; e++) {
        uint32_t of_row[2];
        row_supers<T>(of_row, supers, e / 2);
        acc[e] = __fmaf_rn(gpu_super_scale<layout_t<T>>(book, of_row[0]), a[e], acc[e]);
        if constexpr (layout_t<T>::minima)
            acc[e] = __fmaf_rn(-f32_of_half_bits((uint16_t)of_row[1]), minima[e], acc[e]);
        a[e] = minima[e] = 0;
    }
}

}

#endif
