/* What the kernels of products share: the matrices of a launch, and what a lane reads of a packed block. The files:
 * products.cu (which kernel for what), products_dot.cu (few tokens), products_cut.cu (the same, partial),
 * products_mma.cu (more, by tensor cores), products_few.cu (3 to 8 where rows are few), products_float.cu (float
 * weights). */
#ifndef HEARTH_KERNELS_CUDA_PRODUCTS_CUH
#define HEARTH_KERNELS_CUDA_PRODUCTS_CUH

#include "kernels/cuda/book.cuh"
#include "kernels/cuda/products.h"

/* A function of kernels that vanishes into them. */
#define DEVICE __device__ __forceinline__

/* How the threads of a block that read packed weights lie: 16 rows beside each other, and so many blocks (segments,
 * halves of super-blocks) side by side. */
enum { SIDES = 16, READERS = SIDES * ROW_GROUP };

/* Of a word of codes of all rows of a group. */
enum { WORD_BYTES = 4 * ROW_GROUP };

/* One matrix of a launch. */
struct product_part {
    const uint8_t *data;
    int64_t group_bytes;
    int begin, end; /* its groups, among those of the launch */
    int rows;
    float *y;       /* whole products */
    int64_t stride;
    const float *bias;
};

/* What the work of a share is made of, in a launch for all of them. */
struct product_shares {
    const struct gpu_set *sets;
    const struct gpu_share *of; /* NULL: the launch is for none */
    const uint32_t *n, *token;
    struct acts gathered;
    float *gate, *up;
};

/* A launch: up to three matrices of one type and as many columns, and the x that they read. */
struct product_work {
    struct product_part part[MOST_PRODUCTS];
    int groups;       /* of all of them */
    int cols, blocks; /* of 32 columns */
    int segment;      /* columns of a segment of a partial product */
    int n;            /* tokens */
    enum dtype type;  /* of the weights, which may not be the one that the kernels are named after (packed_like) */
    const float *f32;
    const int8_t *codes;
    const struct act_block *acts;
    struct gpu_book book;
    struct gpu_sums to; /* partial products */
    bool add;
    const uint32_t *token; /* whose the sums of token i are; NULL: i's */
    int most_shares;       /* 1 where there are none */
    struct product_shares shares;
};

/* Each puts one launch into g's stream; one for shares has `groups` of the largest, and n tokens of each at most. */
void products_dot(const struct gpu *g, enum dtype type, const struct product_work &w);
void products_cut(const struct gpu *g, enum dtype type, const struct product_work &w); /* partial */
void products_few(const struct gpu *g, enum dtype type, const struct product_work &w, bool partial);
void products_mma(const struct gpu *g, enum dtype type, const struct product_work &w, bool partial);
void products_float(const struct gpu *g, enum dtype type, const struct product_work &w, bool partial);

namespace {

/* The matrix that a group of the launch belongs to. */
DEVICE struct product_part part_of(const struct product_work &w, int group)
{
    struct product_part p = w.part[0];
    if (group >= w.part[0].end)
        p = w.part[1];
    if (group >= w.part[1].end)
        p = w.part[2];
    return p;
}

DEVICE const uint8_t *group_data(const struct product_work &w, int group)
{
    const struct product_part p = part_of(w, group);
    return p.data + (int64_t)(group - p.begin) * p.group_bytes;
}

/* Row r of a group, where the matrix has it. */
DEVICE void store_y(const struct product_work &w, int group, int r, int64_t token, float sum)
{
    const struct product_part p = part_of(w, group);
    const int row = (group - p.begin) * ROW_GROUP + r;
    if (token < w.n && row < p.rows)
        p.y[token * p.stride + row] = p.bias ? __fadd_rn(sum, p.bias[row]) : sum;
}

/* ---- how blocks lie (kernels/layout.h) ---- */

template <enum dtype T> struct block_t : layout_t<T> {
    using l = layout_t<T>;
    static constexpr int words = l::low_bits + l::high_bits; /* that a row has of a block */
    static constexpr int bytes = l::scale_bytes + l::code_bytes;
    static constexpr int eight = l::super_bytes + 8 * bytes; /* of 8 blocks that begin a super-block */
};

/* From the start of a group to block b. */
template <enum dtype T> DEVICE int64_t block_offset(int b)
{
    using B = block_t<T>;
    return (int64_t)(b / SUPER_BLOCKS) * B::eight + B::super_bytes + b % SUPER_BLOCKS * B::bytes;
}

/* The blocks of a lane or a warp, round after round of ROUND: some of each, LEAP blocks apart. Of a K type they all lie
 * in one half of a super-block. */
template <enum dtype T, int LEAP, int ROUND> struct reading {
    using B = block_t<T>;
    static constexpr int leap_bytes = LEAP * B::bytes;
    static constexpr int round_bytes = B::k ? ROUND / SUPER_BLOCKS * B::eight : ROUND * B::bytes;
    const uint8_t *first; /* of the round */
    int block, blocks;    /* its index, all blocks of the row */

    DEVICE reading(const uint8_t *group, int b, int n) : first(group + block_offset<T>(b)), block(b), blocks(n) {}
    /* Its j-th block of this round, and of the next. */
    DEVICE bool has(int j) const { return block + j * LEAP < blocks; }
    DEVICE bool has_next(int j) const { return block + j * LEAP + ROUND < blocks; }
    DEVICE const uint8_t *at(int j) const { return first + j * leap_bytes; }
    DEVICE const uint8_t *next_at(int j) const { return at(j) + round_bytes; }
    /* The super-block that this round lies in. */
    DEVICE const uint8_t *super_at() const { return first - B::super_bytes - block % SUPER_BLOCKS * B::bytes; }
    DEVICE void next()
    {
        first += round_bytes;
        block += ROUND;
    }
};

/* Scale i of row r of the block at p: f16 d, f16 m, or an exponent; of K types u8 scale and u8 min, or the two halves'
 * bytes. */
template <enum dtype T> DEVICE uint32_t load_scale(const uint8_t *p, int r, int i)
{
    if constexpr (layout_t<T>::byte_scales)
        return __ldg(p + i * ROW_GROUP + r);
    else
        return __ldg((const uint16_t *)p + i * ROW_GROUP + r);
}

template <enum dtype T> DEVICE uint32_t load_word(const uint8_t *p, int r, int i)
{
    return __ldg((const uint32_t *)(p + layout_t<T>::scale_bytes) + i * ROW_GROUP + r);
}

/* f16 d, dmin of row r of a K type's super-block that begins at p. */
template <enum dtype T> DEVICE void load_supers(const uint8_t *p, int r, uint32_t supers[2])
{
    supers[0] = __ldg((const uint16_t *)p + r);
    if constexpr (layout_t<T>::minima)
        supers[1] = __ldg((const uint16_t *)p + ROW_GROUP + r);
}

/* Quad q (a constant) of a row's words: four codes, a byte each. */
template <enum dtype T> DEVICE uint32_t quad_of(const uint32_t *word, int q)
{
    using l = layout_t<T>;
    if constexpr (l::low_bits == 8) {
        return word[q];
    } else {
        uint32_t quad = l::low_bits == 4 ? word[q % 4] >> (q < 4 ? 0 : 4) & 0x0f0f0f0f
                                         : word[q % 2] >> (2 * (q / 2)) & 0x03030303;
        if constexpr (l::high_bits == 2)
            quad |= (word[l::low_bits + q % 2] >> (2 * (q / 2)) & 0x03030303) << 4;
        else if constexpr (l::high_bits == 1)
            quad |= (word[l::low_bits] >> q & 0x01010101) << l::low_bits;
        return quad;
    }
}

/* The scale and the minimum of half h of a K type's block, from what load_scale gave. */
template <enum dtype T> DEVICE int k_scale(const uint32_t *scales, int h)
{
    using l = layout_t<T>;
    const uint32_t byte = scales[l::halves ? h : 0];
    return !l::minima ? (int)(int8_t)byte : (int)(l::halves ? byte & 15 : byte);
}
template <enum dtype T> DEVICE int k_min(const uint32_t *scales, int h)
{
    return layout_t<T>::halves ? (int)(scales[h] >> 4) : (int)scales[1];
}

/* Of a block of x the scale and the scaled sum, and the codes' sums where SUMS. */
template <bool SUMS> DEVICE struct act_block load_act(const struct act_block *p)
{
    if constexpr (SUMS) {
        const int4 v = __ldg((const int4 *)p);
        return {__int_as_float(v.x), __int_as_float(v.y), v.z, v.w};
    } else {
        const float2 v = __ldg((const float2 *)p);
        return {v.x, v.y, 0, 0};
    }
}

/* The scaled sum of half h of a block of x: what of K16 types each half's minimum is multiplied with. */
DEVICE float scaled_half(const struct act_block &x, int h)
{
    return __fmul_rn(x.scale, __int2float_rn(h ? x.minus_sum_low - x.minus_sum : -x.minus_sum_low));
}

/* acc with a half super-block's sums, or with a block of another type: value is a or isum, scale is d or d * x scale,
 * min is -dmin or m. */
template <enum dtype T> DEVICE float add_scaled(float acc, float value, float scale, float min, float of_min)
{
    acc = __fmaf_rn(scale, value, acc);
    return layout_t<T>::minima ? __fmaf_rn(min, of_min, acc) : acc;
}

}

#endif
