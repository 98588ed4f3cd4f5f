/* Single weights of the types whose blocks have numbers of points of grids in place of codes (kernels/grids.h), and of
 * the ternary ones: where they have what is told in kernels/decode_grids.c. To look for a point takes a while, and few
 * are looked for: of the embedding's rows those of a step's tokens. */
#ifndef HEARTH_KERNELS_CUDA_FILE_GRIDS_CUH
#define HEARTH_KERNELS_CUDA_FILE_GRIDS_CUH

#include "kernels/cuda/common.cuh"
#include "kernels/grids.h"

namespace file_weights {

static __device__ const uint32_t grid_sets[GRIDS][GRID_WORDS] =
#include "kernels/grid_sets.h"
    ;

/* A weight: d * (value of code) + m; of K types d * scale * (value of code) - m * min. */
struct parts {
    int code, scale, min;
    uint16_t d, m; /* f16; of MXFP4 an exponent */
};

__device__ __forceinline__ int byte_at(const uint8_t *p) { return __ldg(p); }
__device__ __forceinline__ uint16_t half_at(const uint8_t *p) { return __ldg((const uint16_t *)p); }
__device__ __forceinline__ uint32_t word_at(const uint8_t *p) { return half_at(p) | (uint32_t)half_at(p + 2) << 16; }

/* Number i of a grid's point. */
template <enum grid G> __device__ __forceinline__ int of_point(int point, int i)
{
    constexpr int base = G >= GRID_IQ3_XXS ? 8 : 3;
    const uint32_t *set = grid_sets[G];
    for (int n; (n = __popc(*set)) <= point; set++)
        point -= n;
    uint32_t bits = *set;
    for (; point > 0; point--)
        bits &= bits - 1;
    int digits = 32 * (int)(set - grid_sets[G]) + __ffs((int)bits) - 1;
    for (; i > 0; i--)
        digits /= base;
    return digits % base;
}

/* Sign i of eight of which seven are given: an even number of them is set. */
__device__ __forceinline__ int even_sign(uint32_t seven, int i)
{
    seven &= 127;
    return (int)(i < 7 ? seven >> i & 1 : __popc(seven) & 1);
}

/* A code from a number below 3 or 8 and its sign, and the odd number that a scale is of. */
__device__ __forceinline__ struct parts of_three(int number, int sign, int scale, uint16_t d)
{
    return {number | sign << 2, 2 * scale + 1, 0, d, 0};
}
__device__ __forceinline__ struct parts of_eight(int number, int sign, int scale, uint16_t d)
{
    return {number | sign << 3, 2 * scale + 1, 0, d, 0};
}

/* Column c of a block lies in block j of 32 columns, there among the i-th eight or the i-th four columns, h-th
 * sixteen. */

__device__ __forceinline__ struct parts parts_of_iq2_xxs(const uint8_t *p, int c)
{
    const int i = c % 32 / 8;
    const uint8_t *numbers = p + 2 + 8 * (c / 32);
    const uint32_t signs = word_at(numbers + 4);
    return of_three(of_point<GRID_IQ2_XXS>(byte_at(numbers + i), c % 8), even_sign(signs >> 7 * i, c % 8),
                    (int)(signs >> 28), half_at(p));
}

__device__ __forceinline__ struct parts parts_of_iq2_xs(const uint8_t *p, int c)
{
    const int bits = half_at(p + 2 + 2 * (c / 8)), scale = byte_at(p + 66 + c / 32) >> 4 * (c % 32 / 16) & 15;
    return of_three(of_point<GRID_IQ2_XS>(bits & 511, c % 8), even_sign((uint32_t)bits >> 9, c % 8), scale, half_at(p));
}

__device__ __forceinline__ struct parts parts_of_iq2_s(const uint8_t *p, int c)
{
    const int j = c / 32, point = byte_at(p + 2 + c / 8) | (byte_at(p + 66 + j) >> 2 * (c % 32 / 8) & 3) << 8;
    const int sign = byte_at(p + 34 + c / 8) >> c % 8 & 1, scale = byte_at(p + 74 + j) >> 4 * (c % 32 / 16) & 15;
    return of_three(of_point<GRID_IQ2_S>(point, c % 8), sign, scale, half_at(p));
}

__device__ __forceinline__ struct parts parts_of_iq3_xxs(const uint8_t *p, int c)
{
    const uint32_t signs = word_at(p + 66 + 4 * (c / 32));
    return of_eight(of_point<GRID_IQ3_XXS>(byte_at(p + 2 + c / 4), c % 4), even_sign(signs >> 7 * (c % 32 / 8), c % 8),
                    (int)(signs >> 28), half_at(p));
}

__device__ __forceinline__ struct parts parts_of_iq3_s(const uint8_t *p, int c)
{
    const int j = c / 32, point = byte_at(p + 2 + c / 4) | (byte_at(p + 66 + j) >> c % 32 / 4 & 1) << 8;
    const int sign = byte_at(p + 74 + c / 8) >> c % 8 & 1, scale = byte_at(p + 106 + j / 2) >> 4 * (j % 2) & 15;
    return of_eight(of_point<GRID_IQ3_S>(point, c % 4), sign, scale, half_at(p));
}

__device__ __forceinline__ struct parts parts_of_iq1_s(const uint8_t *p, int c)
{
    const int high = half_at(p + 34 + 2 * (c / 32)), point = byte_at(p + 2 + c / 8) | (high >> 3 * (c % 32 / 8) & 7)
                                                                                          << 8;
    return of_three(of_point<GRID_IQ1>(point, c % 8), high >> 15, high >> 12 & 7, half_at(p));
}

__device__ __forceinline__ struct parts parts_of_iq1_m(const uint8_t *p, int c)
{
    const uint8_t *scales = p + 48;
    const int scale = half_at(scales + 2 * (c / 64)) >> (6 * (c / 32 % 2) + 3 * (c % 32 / 16)) & 7;
    const int high = byte_at(p + 32 + c / 16) >> 4 * (c / 8 % 2), point = byte_at(p + c / 8) | (high & 7) << 8;
    int d = 0;
#pragma unroll
    for (int i = 0; i < 4; i++)
        d |= half_at(scales + 2 * i) >> 12 << 4 * i;
    return of_three(of_point<GRID_IQ1>(point, c % 8), high >> 3 & 1, scale, (uint16_t)d);
}

/* Five digits to base 3 in a byte, of which the last 16 columns use four. */
__device__ __forceinline__ struct parts parts_of_tq1_0(const uint8_t *p, int c)
{
    const bool first = c < 160, second = c < 240;
    const int at = first ? c % 32 : second ? 32 + c % 16 : 48 + c % 4;
    int byte = byte_at(p + at);
    for (int n = first ? c / 32 : second ? (c - 160) / 16 : (c - 240) / 4; n > 0; n--)
        byte = byte * 3 & 255;
    return {byte * 3 >> 8, 0, 0, half_at(p + 52), 0};
}

__device__ __forceinline__ struct parts parts_of_tq2_0(const uint8_t *p, int c)
{
    return {byte_at(p + 32 * (c / 128) + c % 32) >> 2 * (c / 32 % 4) & 3, 0, 0, half_at(p + 64), 0};
}

}

#endif
