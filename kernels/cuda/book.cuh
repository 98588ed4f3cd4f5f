/* What codes stand for whose values are looked up (layout_t's looked_up): a book of kernels/book.h as bytes with a
 * sign. A launch brings it, so that types which differ in nothing else share their kernels. */
#ifndef HEARTH_KERNELS_CUDA_BOOK_CUH
#define HEARTH_KERNELS_CUDA_BOOK_CUH

#include "kernels/cuda/common.cuh"
#include "kernels/layout.h"

struct gpu_book {
    uint32_t values[4]; /* value of code i: byte i */
    float unit;         /* super_unit of kernels/layout.h */
};

static inline struct gpu_book gpu_book_of(enum dtype type)
{
    const struct layout l = layout_of(type);
    struct gpu_book book = {{}, super_unit(l)};
    for (int i = 0; i < 16; i++)
        book.values[i / 4] |= (uint32_t)(uint8_t)value_of(l, i) << 8 * (i % 4);
    return book;
}

/* Two words of four codes each, a byte a code, become the values. FEW: codes are below 8. */
template <bool FEW>
__device__ __forceinline__ void gpu_look_up(const struct gpu_book &book, uint32_t *one, uint32_t *two)
{
    const uint32_t codes = *one | *two << 4; /* a byte permutation takes four of them, side by side, */
    const uint32_t number = codes & 0x77777777; /* of three bits without the fourth */
    uint32_t first = __byte_perm(book.values[0], book.values[1], number);
    uint32_t second = __byte_perm(book.values[0], book.values[1], number >> 16);
    if (!FEW) {
        const uint32_t from = (codes >> 1 & 0x44444444) | 0x32103210; /* the lower or the upper half of the book */
        first = __byte_perm(first, __byte_perm(book.values[2], book.values[3], number), from);
        second = __byte_perm(second, __byte_perm(book.values[2], book.values[3], number >> 16), from >> 16);
    }
    *one = __byte_perm(first, second, 0x6420);
    *two = __byte_perm(first, second, 0x7531);
}

/* The codes of a block, a quad a word, become the values where they are looked up. */
template <class L> __device__ __forceinline__ void gpu_look_up_block(const struct gpu_book &book, uint32_t quad[8])
{
    if constexpr (L::looked_up)
#pragma unroll
        for (int q = 0; q < 4; q++)
            gpu_look_up<(L::low_bits + L::high_bits < 4)>(book, &quad[q], &quad[q + 4]);
}

/* d of a row, from what a block's scales have, or a K type's super-block. */
template <class L> __device__ __forceinline__ float gpu_block_scale(uint32_t bits)
{
    if constexpr (L::exponents) /* f32_of_exponent of kernels/layout.h */
        return __uint_as_float(bits == 255 ? 0x7fc00000 : bits < 2 ? 0x00200000u << bits : (bits - 1) << 23);
    else
        return f32_of_half_bits((uint16_t)bits);
}
template <class L> __device__ __forceinline__ float gpu_super_scale(const struct gpu_book &book, uint32_t bits)
{
    const float d = f32_of_half_bits((uint16_t)bits);
    return L::looked_up ? __fmul_rn(book.unit, d) : d;
}

#endif
