/* Dot products of packed blocks with blocks of x, four bytes at a time. A lane has a row and a block of it; the 16
 * lanes beside each other have the 16 rows of a group, so that they read each 64-byte word of the block together, and
 * all of them the same block of x. */
#ifndef HEARTH_KERNELS_CUDA_PRODUCTS_DOT_CUH
#define HEARTH_KERNELS_CUDA_PRODUCTS_DOT_CUH

#include "kernels/cuda/products.cuh"

namespace {

enum {
    SLOTS = 4,                    /* blocks that a lane has on their way: it reads so many ahead */
    ROUND_BLOCKS = SIDES * SLOTS, /* blocks that a thread block passes before it comes back to a slot */
};

/* What a lane reads of a block. */
template <enum dtype T> struct slot {
    uint32_t word[block_t<T>::words];
    uint32_t scale[layout_t<T>::row_scales];
};

/* Fills a slot with row r's part of the block at p. */
template <enum dtype T> DEVICE void fill(struct slot<T> &s, const uint8_t *p, int r)
{
#pragma unroll
    for (int i = 0; i < layout_t<T>::row_scales; i++)
        s.scale[i] = load_scale<T>(p, r, i);
#pragma unroll
    for (int i = 0; i < block_t<T>::words; i++)
        s.word[i] = load_word<T>(p, r, i);
}

/* Fills the slots for the next round, all at once: a warp waits for all of its loads, whichever it needs. */
template <enum dtype T, typename READING> DEVICE void refill(struct slot<T> *slots, const READING &from, int r)
{
#pragma unroll
    for (int j = 0; j < SLOTS; j++)
        if (from.has_next(j))
            fill<T>(slots[j], from.next_at(j), r);
}

/* A block of 32 columns of a token. */
struct x_block {
    int4 low, high; /* codes of columns 0..15, 16..31 */
    struct act_block act;
};

/* What of their codes' offset __dp4a leaves, whose both sides are signed: codes of 8 bits come without it. */
template <enum dtype T> struct dot_t {
    using l = layout_t<T>;
    static constexpr int offset = l::low_bits == 8 ? 0 : l::offset;
    static constexpr bool sums = offset != 0 || (l::minima && l::halves); /* whether sums of x's codes are needed */
};

/* Where N tokens from `token` on lie. Past the last one it is taken again. */
template <int N> struct x_rows {
    const int4 *codes[N];
    const struct act_block *acts[N];
};

template <int N> DEVICE struct x_rows<N> rows_of_x(const struct product_work &w, int token)
{
    struct x_rows<N> x;
#pragma unroll
    for (int t = 0; t < N; t++) {
        const int64_t at = min(token + t, w.n - 1);
        x.codes[t] = (const int4 *)(w.codes + at * w.cols);
        x.acts[t] = w.acts + at * w.blocks;
    }
    return x;
}

template <enum dtype T, int N> DEVICE struct x_block load_x(const struct x_rows<N> &x, int t, int block)
{
    return {__ldg(x.codes[t] + 2 * block), __ldg(x.codes[t] + 2 * block + 1),
            load_act<dot_t<T>::sums>(x.acts[t] + block)};
}

/* A row's block as bytes for __dp4a. */
template <enum dtype T> DEVICE void take_quads(const struct gpu_book &book, const struct slot<T> &s, uint32_t quad[8])
{
#pragma unroll
    for (int q = 0; q < 8; q++)
        quad[q] = layout_t<T>::low_bits == 8 ? s.word[q] ^ 0x80808080 : quad_of<T>(s.word, q);
    gpu_look_up_block<layout_t<T>>(book, quad);
}

DEVICE int dot_16(const uint32_t *quad, int4 x, int sum)
{
    sum = __dp4a((int)quad[0], x.x, sum);
    sum = __dp4a((int)quad[1], x.y, sum);
    sum = __dp4a((int)quad[2], x.z, sum);
    return __dp4a((int)quad[3], x.w, sum);
}

/* The exact sums of (code - offset) * code of x over columns 0..15 and 16..31. */
struct halves {
    int low, high;
};
template <enum dtype T> DEVICE struct halves dot_block(const uint32_t quad[8], const struct x_block &x)
{
    using l = layout_t<T>;
    constexpr int offset = dot_t<T>::offset;
    const int low = l::halves ? x.act.minus_sum_low : 0;
    return {dot_16(quad, x.low, offset * low), dot_16(quad + 4, x.high, offset * (x.act.minus_sum - low))};
}

/* What a block of a K type adds to the sums of its half super-block. */
template <enum dtype T>
DEVICE void add_k_block(const uint32_t *scale, struct halves sum, const struct act_block &x, float &a, float &minima)
{
    using l = layout_t<T>;
    const int t = l::halves ? k_scale<T>(scale, 0) * sum.low + k_scale<T>(scale, 1) * sum.high
                            : k_scale<T>(scale, 0) * (sum.low + sum.high);
    a = __fmaf_rn(__int2float_rn(t), x.scale, a);
    if constexpr (l::minima && l::halves) {
        minima = __fmaf_rn(__int2float_rn(k_min<T>(scale, 0)), scaled_half(x, 0), minima);
        minima = __fmaf_rn(__int2float_rn(k_min<T>(scale, 1)), scaled_half(x, 1), minima);
    } else if constexpr (l::minima) {
        minima = __fmaf_rn(__int2float_rn(k_min<T>(scale, 0)), x.scaled_sum, minima);
    }
}

}

#endif
