/* Single weights of a row that lies as the file has it: the values of dequantize_row (kernels/kernels.h), and where
 * ggml's blocks have them is told in kernels/layout.c. Blocks of quantised types but MXFP4 lie on multiples of 2
 * bytes. */
#ifndef HEARTH_KERNELS_CUDA_FILE_WEIGHTS_CUH
#define HEARTH_KERNELS_CUDA_FILE_WEIGHTS_CUH

#include "kernels/cuda/book.cuh"
#include "kernels/cuda/file_grids.cuh"

namespace file_weights {

static __device__ const uint8_t book[BOOKS][16] = BOOK_VALUES;

__host__ __device__ constexpr int block_bytes(enum dtype type)
{
    switch (type) {
    case DT_Q4_0: return 18;
    case DT_Q4_1: return 20;
    case DT_Q5_0: return 22;
    case DT_Q5_1: return 24;
    case DT_Q2_K: return 84;
    case DT_Q3_K: return 110;
    case DT_Q4_K: return 144;
    case DT_Q5_K: return 176;
    case DT_Q6_K: return 210;
    case DT_MXFP4: return 17;
    case DT_IQ4_NL: return 18;
    case DT_IQ4_XS: return 136;
    case DT_IQ3_S: return 110;
    case DT_IQ3_XXS: return 98;
    case DT_IQ2_S: return 82;
    case DT_IQ2_XS: return 74;
    case DT_IQ2_XXS: return 66;
    case DT_IQ1_M: return 56;
    case DT_IQ1_S: return 50;
    case DT_TQ1_0: return 54;
    case DT_TQ2_0: return 66;
    default: return 34; /* DT_Q8_0 */
    }
}

/* Weights of a block. */
__host__ __device__ constexpr int block_weights(enum dtype type)
{
    switch (type) {
    case DT_Q4_0:
    case DT_Q4_1:
    case DT_Q5_0:
    case DT_Q5_1:
    case DT_Q8_0:
    case DT_MXFP4:
    case DT_IQ4_NL: return 32;
    default: return 256;
    }
}

/* d, m, (the fifth bits of 32 codes), 16 bytes of nibbles. */
template <enum dtype T> __device__ __forceinline__ struct parts parts_of_nibbles(const uint8_t *p, int c)
{
    using l = layout_t<T>;
    constexpr int head = l::minima ? 4 : 2, codes = head + 4 * l::high_bits;
    struct parts w = {byte_at(p + codes + c % 16) >> c / 16 * 4 & 15, 0, 0, half_at(p), 0};
    if (l::minima)
        w.m = half_at(p + 2);
    if (l::high_bits)
        w.code |= (byte_at(p + head + c / 8) >> c % 8 & 1) << 4;
    return w;
}

__device__ __forceinline__ struct parts parts_of_q2_k(const uint8_t *p, int c)
{
    const int both = byte_at(p + c / 16);
    const int code = byte_at(p + 16 + 32 * (c / 128) + c % 32) >> 2 * (c / 32 % 4) & 3;
    return {code, both & 15, both >> 4, half_at(p + 80), half_at(p + 82)};
}

__device__ __forceinline__ struct parts parts_of_q3_k(const uint8_t *p, int c)
{
    const uint8_t *scales = p + 96;
    const int i = c / 16, low = byte_at(scales + i % 8) >> i / 8 * 4 & 15;
    const int high = byte_at(scales + 8 + i % 4) >> 2 * (i / 4) & 3;
    const int code = (byte_at(p + 32 + 32 * (c / 128) + c % 32) >> 2 * (c / 32 % 4) & 3) |
                     (byte_at(p + c % 32) >> c / 32 & 1) << 2;
    return {code, (low | high << 4) - 32, 0, half_at(p + 108), 0};
}

template <bool FIVE> __device__ __forceinline__ struct parts parts_of_q45_k(const uint8_t *p, int c)
{
    const uint8_t *scales = p + 4;
    const int j = c / 32, pair = byte_at(scales + 4 + j);
    struct parts w = {byte_at(p + (FIVE ? 48 : 16) + 32 * (j / 2) + c % 32) >> j % 2 * 4 & 15, 0, 0, half_at(p),
                      half_at(p + 2)};
    if (FIVE)
        w.code |= (byte_at(p + 16 + c % 32) >> j & 1) << 4;
    if (j < 4) {
        w.scale = byte_at(scales + j) & 63;
        w.min = pair & 63;
    } else {
        w.scale = (pair & 15) | byte_at(scales + j - 4) >> 6 << 4;
        w.min = pair >> 4 | byte_at(scales + j) >> 6 << 4;
    }
    return w;
}

__device__ __forceinline__ struct parts parts_of_q6_k(const uint8_t *p, int c)
{
    const int n = c / 128, s = c / 32 % 4;
    const int low = byte_at(p + 64 * n + 32 * (s % 2) + c % 32) >> s / 2 * 4 & 15;
    const int high = byte_at(p + 128 + 32 * n + c % 32) >> 2 * s & 3;
    return {low | high << 4, (int8_t)byte_at(p + 192 + c / 16), 0, half_at(p + 208), 0};
}

__device__ __forceinline__ struct parts parts_of_mxfp4(const uint8_t *p, int c)
{
    return {byte_at(p + 1 + c % 16) >> c / 16 * 4 & 15, 0, 0, (uint16_t)byte_at(p), 0};
}

__device__ __forceinline__ struct parts parts_of_iq4_xs(const uint8_t *p, int c)
{
    const int j = c / 32, low = byte_at(p + 4 + j / 2) >> j % 2 * 4 & 15, high = half_at(p + 2) >> 2 * j & 3;
    return {byte_at(p + 8 + 16 * j + c % 16) >> c % 32 / 16 * 4 & 15, (low | high << 4) - 32, 0, half_at(p), 0};
}

template <enum dtype T> __device__ __forceinline__ struct parts parts_at(const uint8_t *p, int c)
{
    if constexpr (T == DT_Q2_K)
        return parts_of_q2_k(p, c);
    else if constexpr (T == DT_Q3_K)
        return parts_of_q3_k(p, c);
    else if constexpr (T == DT_Q4_K || T == DT_Q5_K)
        return parts_of_q45_k<T == DT_Q5_K>(p, c);
    else if constexpr (T == DT_Q6_K)
        return parts_of_q6_k(p, c);
    else if constexpr (T == DT_MXFP4)
        return parts_of_mxfp4(p, c);
    else if constexpr (T == DT_IQ4_XS)
        return parts_of_iq4_xs(p, c);
    else if constexpr (T == DT_IQ3_S)
        return parts_of_iq3_s(p, c);
    else if constexpr (T == DT_IQ3_XXS)
        return parts_of_iq3_xxs(p, c);
    else if constexpr (T == DT_IQ2_S)
        return parts_of_iq2_s(p, c);
    else if constexpr (T == DT_IQ2_XS)
        return parts_of_iq2_xs(p, c);
    else if constexpr (T == DT_IQ2_XXS)
        return parts_of_iq2_xxs(p, c);
    else if constexpr (T == DT_IQ1_M)
        return parts_of_iq1_m(p, c);
    else if constexpr (T == DT_IQ1_S)
        return parts_of_iq1_s(p, c);
    else if constexpr (T == DT_TQ1_0)
        return parts_of_tq1_0(p, c);
    else if constexpr (T == DT_TQ2_0)
        return parts_of_tq2_0(p, c);
    else if constexpr (T == DT_Q8_0)
        return {byte_at(p + 2 + c) ^ 128, 0, 0, half_at(p), 0};
    else
        return parts_of_nibbles<T>(p, c);
}

template <enum dtype T> __device__ __forceinline__ float quantised(const uint8_t *row, int64_t i)
{
    using l = layout_t<T>;
    constexpr int block = block_weights(T);
    const struct parts w = parts_at<T>(row + i / block * block_bytes(T), (int)(i % block));
    const float d = __fmul_rn(l::unit, gpu_block_scale<l>(w.d)), m = f32_of_half_bits(w.m);
    const float scale = l::k ? __fmul_rn(d, __int2float_rn(w.scale)) : d;
    const int code = l::book == NO_BOOK ? w.code : book[l::book][w.code];
    const float value = __fmul_rn(scale, __int2float_rn(code - l::value_offset));
    if (!l::minima)
        return value;
    return l::k ? __fsub_rn(value, __fmul_rn(m, __int2float_rn(w.min))) : __fadd_rn(value, m);
}

}

/* Bytes of a row of n weights. */
template <enum dtype T> __host__ __device__ __forceinline__ int64_t file_row_bytes(int64_t n)
{
    if constexpr (is_float(T))
        return n * (T == DT_F32 ? 4 : 2);
    else
        return n / file_weights::block_weights(T) * file_weights::block_bytes(T);
}

/* Weight i of a row, T any type of weights. */
template <enum dtype T> __device__ __forceinline__ float file_weight(const uint8_t *row, int64_t i)
{
    if constexpr (T == DT_F32)
        return __ldg((const float *)row + i);
    else if constexpr (T == DT_F16)
        return f32_of_half_bits(__ldg((const uint16_t *)row + i));
    else if constexpr (T == DT_BF16)
        return f32_of_bf16_bits(__ldg((const uint16_t *)row + i));
    else
        return file_weights::quantised<T>(row, i);
}

#endif
