/* What a lane reads of a neuron's row (kernels/row_layout.h): a block of 32 columns. A half-warp reads a chunk, each
 * word of a field 64 bytes side by side. */
#ifndef HEARTH_KERNELS_CUDA_NEURON_ROWS_CUH
#define HEARTH_KERNELS_CUDA_NEURON_ROWS_CUH

#include "kernels/cuda/book.cuh"
#include "kernels/rows.h"

namespace {

/* Rows and the tokens that they are multiplied with. */
struct factors {
    const uint8_t *top, *rest;
    int64_t top_bytes, rest_bytes;
    int cols;
    const int8_t *codes;
    const struct act_block *blocks;
    const float *f32;
    struct gpu_book book;
};

struct factors factors_of(const struct neuron_rows *m, const struct acts *x)
{
    return {m->top,   m->rest,   (int64_t)m->top_bytes, (int64_t)m->rest_bytes, (int)m->cols,
            x->codes, x->blocks, x->f32,                gpu_book_of(m->type)};
}

static inline bool in_whole_chunks(const struct neuron_rows *m) { return m->cols % LANE_COLS == 0; }

/* kernels/row_layout.h in constants: bits of the fields of the top part and of the rest part, which are also the words
 * that a block has of them. */
template <enum dtype T, bool PLANES> struct row_t : layout_t<T> {
    using l = layout_t<T>;
    static constexpr bool planes = PLANES;
    static constexpr int code_bits = l::low_bits + l::high_bits;
    static constexpr int top_bits = l::low_bits == 8 || l::minima ? 3 : 2;
    static constexpr bool can_have_planes = code_bits > top_bits && !l::looked_up;
    static constexpr int rest_bits = PLANES ? code_bits - top_bits : 0;
    static constexpr int low = PLANES ? 2 : l::low_bits, high = PLANES ? top_bits - 2 : l::high_bits;
    static constexpr int rest_low = rest_bits >= 4 ? 4 : rest_bits >= 2 ? 2 : rest_bits;
    static constexpr int rest_high = rest_bits - rest_low;
    static constexpr int chunk_bytes = l::super_bytes / SUPER_BLOCKS + l::scale_bytes + 4 * LANE_BLOCKS * (low + high);
    static constexpr int chunk_rest = 4 * LANE_BLOCKS * rest_bits;
};

template <class R> struct row_block {
    uint32_t top[R::low + R::high], rest[R::rest_bits + 1]; /* the last of `rest` is none */
    uint32_t d, m;             /* f16, or an exponent; of a K type the two bytes */
    uint32_t super_d, super_m; /* f16 */
};

/* Where rows lie while they are read: in the GPU's memory, where nothing writes them, or SHARED, brought from there. */
template <class V, bool SHARED> __device__ __forceinline__ V load_as(const uint8_t *p)
{
    return SHARED ? *(const V *)p : __ldg((const V *)p);
}

template <bool SHARED> __device__ __forceinline__ uint32_t load_f16_bits(const uint8_t *p)
{
    return load_as<uint16_t, SHARED>(p);
}

template <class R, bool SHARED> __device__ __forceinline__ uint32_t load_scale(const uint8_t *scales, int i)
{
    return R::byte_scales ? load_as<uint8_t, SHARED>(scales + i) : load_f16_bits<SHARED>(scales + 2 * i);
}

/* Two bytes, which lie on one where scales are exponents. */
template <class R, bool SHARED> __device__ __forceinline__ uint32_t load_half_word(const uint8_t *p)
{
    if constexpr (R::exponents)
        return load_as<uint8_t, SHARED>(p) | (uint32_t)load_as<uint8_t, SHARED>(p + 1) << 8;
    else
        return load_f16_bits<SHARED>(p);
}

/* A word of codes. Of the last chunk, which may have an odd number of scales before, it need not lie on 4 bytes. */
template <class R, bool FULL, bool SHARED> __device__ __forceinline__ uint32_t load_codes(const uint8_t *p)
{
    if (FULL)
        return load_as<uint32_t, SHARED>(p);
    return load_half_word<R, SHARED>(p) | load_half_word<R, SHARED>(p + 2) << 16;
}

/* Block i of the n of chunk k. EXACT: its rest too. */
template <class R, bool EXACT, bool FULL, bool SHARED = false>
__device__ __forceinline__ void load_of_chunk(const uint8_t *top, const uint8_t *rest, int k, int i, int n,
                                              struct row_block<R> *to)
{
    const uint8_t *p = top + (int64_t)k * R::chunk_bytes;
    const int blocks = FULL ? (int)LANE_BLOCKS : n;
    constexpr int scale_size = R::byte_scales ? 1 : 2;
    if constexpr (R::k) {
        to->super_d = load_f16_bits<SHARED>(p + 2 * (i / SUPER_BLOCKS));
        p += 2 * (blocks / SUPER_BLOCKS);
        if constexpr (R::minima) {
            to->super_m = load_f16_bits<SHARED>(p + 2 * (i / SUPER_BLOCKS));
            p += 2 * (blocks / SUPER_BLOCKS);
        }
    }
    to->d = load_scale<R, SHARED>(p, i);
    p += scale_size * blocks;
    if constexpr (R::row_scales == 2) {
        to->m = load_scale<R, SHARED>(p, i);
        p += scale_size * blocks;
    }
#pragma unroll
    for (int w = 0; w < R::low + R::high; w++)
        to->top[w] = load_codes<R, FULL, SHARED>(p + 4 * (w * blocks + i));
    if constexpr (EXACT && R::planes) {
        rest += (int64_t)k * R::chunk_rest;
#pragma unroll
        for (int w = 0; w < R::rest_bits; w++)
            to->rest[w] = load_codes<R, FULL, SHARED>(rest + 4 * (w * blocks + i));
    }
}

/* Block b of a row's n. WHOLE: n is a multiple of LANE_BLOCKS, so that no chunk is looked at for its size. */
template <class R, bool EXACT, bool WHOLE>
__device__ __forceinline__ void load_block(const struct factors &f, int row, int b, int n, struct row_block<R> *to)
{
    const uint8_t *top = f.top + row * f.top_bytes, *rest = f.rest + row * f.rest_bytes;
    const int k = b / LANE_BLOCKS, left = n - k * LANE_BLOCKS;
    if (WHOLE || left >= LANE_BLOCKS)
        load_of_chunk<R, EXACT, true>(top, rest, k, b % LANE_BLOCKS, LANE_BLOCKS, to);
    else
        load_of_chunk<R, EXACT, false>(top, rest, k, b % LANE_BLOCKS, left, to);
}

/* The bits of a field join the codes, `up` bits up. Bits s .. of word w belong to quad s + w. */
template <int BITS> __device__ __forceinline__ void add_field(const uint32_t *word, int up, uint32_t quad[8])
{
    if constexpr (BITS > 0) {
        constexpr uint32_t mask = 0x01010101u * ((1u << BITS) - 1);
#pragma unroll
        for (int w = 0; w < BITS; w++)
#pragma unroll
            for (int s = 0; s < 8; s += BITS)
                quad[s + w] |= (word[w] >> s & mask) << up;
    }
}

/* The codes of a block; of 8 bits, the codes less their offset of 128; what is looked up. Not EXACT: their top bits as
 * numbers of their own. */
template <class R, bool EXACT>
__device__ __forceinline__ void codes_of(const struct gpu_book &book, const struct row_block<R> &b, uint32_t quad[8])
{
    constexpr int up = EXACT ? R::rest_bits : 0;
#pragma unroll
    for (int q = 0; q < 8; q++)
        quad[q] = 0;
    add_field<R::low>(b.top, up, quad);
    add_field<R::high>(b.top + R::low, up + R::low, quad);
    if constexpr (EXACT) {
        add_field<R::rest_low>(b.rest, 0, quad);
        add_field<R::rest_high>(b.rest + R::rest_low, R::rest_low, quad);
    }
#pragma unroll
    for (int q = 0; q < 8; q++)
        quad[q] ^= EXACT && R::code_bits == 8 ? 0x80808080 : 0;
    gpu_look_up_block<R>(book, quad);
}

/* A block of x. */
struct x_block {
    uint32_t quad[8];
    struct act_block s;
};

__device__ __forceinline__ struct x_block load_x(const struct factors &f, int64_t at)
{
    const uint4 *codes = (const uint4 *)(f.codes + at * ACT_BLOCK), a = codes[0], b = codes[1];
    const int4 s = *(const int4 *)(f.blocks + at);
    return {{a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w}, {__int_as_float(s.x), __int_as_float(s.y), s.z, s.w}};
}

/* Minus the sum of x's codes in half h; of types with one scale for 32 columns: in all of them. */
template <class R> __device__ __forceinline__ int minus_sum_of(const struct act_block &s, int h)
{
    return !R::halves ? s.minus_sum : h == 0 ? s.minus_sum_low : s.minus_sum - s.minus_sum_low;
}

/* The scaled sum that goes with a minimum. */
template <class R> __device__ __forceinline__ float scaled_sum_of(const struct act_block &s, int h)
{
    return R::halves ? __fmul_rn(s.scale, (float)-minus_sum_of<R>(s, h)) : s.scaled_sum;
}

/* start + the sum of code * x over half h, or over all columns. */
template <class R>
__device__ __forceinline__ int dot_codes(const uint32_t quad[8], const struct x_block &x, int h, int start)
{
    int sum = start;
#pragma unroll
    for (int q = R::halves ? 4 * h : 0; q < (R::halves ? 4 * h + 4 : 8); q++)
        sum = __dp4a((int)quad[q], (int)x.quad[q], sum);
    return sum;
}

/* The scale and the minimum of half h of a K type's block. */
template <class R> __device__ __forceinline__ int k_scale_of(const struct row_block<R> &b, int h)
{
    const uint32_t byte = h ? b.m : b.d;
    return R::minima ? (int)(R::halves ? byte & 15 : byte) : (int)(int8_t)byte;
}
template <class R> __device__ __forceinline__ int k_min_of(const struct row_block<R> &b, int h)
{
    return R::halves ? (int)((h ? b.m : b.d) >> 4) : (int)b.m;
}

}

#endif
