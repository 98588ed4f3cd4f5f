/* Types of weights as constants: how they are packed, and which kernels take them. */
#ifndef HEARTH_KERNELS_CUDA_TYPES_CUH
#define HEARTH_KERNELS_CUDA_TYPES_CUH

#include "base/dtype.h"
#include "kernels/book.h"

/* ---- layouts ---- */

/* kernels/layout.h's layout_of, layout_scale_bytes, layout_code_bytes, layout_super_bytes and super_unit as
 * constants. */
template <int LOW, int HIGH, int OFFSET, int SHIFT, bool K, bool HALVES, bool MINIMA, enum book BOOK = NO_BOOK>
struct layout_numbers {
    static constexpr int low_bits = LOW, high_bits = HIGH, value_offset = OFFSET, offset_shift = SHIFT;
    static constexpr bool k = K, halves = HALVES, minima = MINIMA;
    static constexpr enum book book = BOOK;
    /* Codes become bytes with a sign by a look-up (book.cuh): a book's, and TQ's, whose offset no shift makes a
     * sign. */
    static constexpr bool looked_up = BOOK != NO_BOOK || OFFSET == 1;
    static constexpr int offset = looked_up ? 0 : OFFSET; /* of what is multiplied */
    static constexpr bool exponents = BOOK == BOOK_MXFP4; /* for scales; */
    static constexpr bool byte_scales = K || exponents;   /* else they are f16 */
    static constexpr int row_scales = HALVES || MINIMA ? 2 : 1; /* that a row has of a block */
    static constexpr float unit = BOOK == BOOK_IQ3_XXS ? 0.25f : BOOK == BOOK_IQ2 || BOOK == BOOK_IQ1 ? 0.125f : 1.0f;
    static constexpr int code_bytes = 64 * (LOW + HIGH);
    static constexpr int scale_bytes = 16 * row_scales * (byte_scales ? 1 : 2);
    static constexpr int super_bytes = !K ? 0 : MINIMA ? 64 : 32;
};
template <enum dtype T> struct layout_t;
template <> struct layout_t<DT_Q4_0> : layout_numbers<4, 0, 8, 3, false, false, false> {};
template <> struct layout_t<DT_Q4_1> : layout_numbers<4, 0, 0, 0, false, false, true> {};
template <> struct layout_t<DT_Q5_0> : layout_numbers<4, 1, 16, 4, false, false, false> {};
template <> struct layout_t<DT_Q5_1> : layout_numbers<4, 1, 0, 0, false, false, true> {};
template <> struct layout_t<DT_Q8_0> : layout_numbers<8, 0, 128, 7, false, false, false> {};
template <> struct layout_t<DT_Q2_K> : layout_numbers<2, 0, 0, 0, true, true, true> {};
template <> struct layout_t<DT_Q3_K> : layout_numbers<2, 1, 4, 2, true, true, false> {};
template <> struct layout_t<DT_Q4_K> : layout_numbers<4, 0, 0, 0, true, false, true> {};
template <> struct layout_t<DT_Q5_K> : layout_numbers<4, 1, 0, 0, true, false, true> {};
template <> struct layout_t<DT_Q6_K> : layout_numbers<4, 2, 32, 5, true, true, false> {};
template <> struct layout_t<DT_MXFP4> : layout_numbers<4, 0, 16, 4, false, false, false, BOOK_MXFP4> {};
template <> struct layout_t<DT_IQ4_NL> : layout_numbers<4, 0, 128, 7, false, false, false, BOOK_IQ4> {};
template <> struct layout_t<DT_IQ4_XS> : layout_numbers<4, 0, 128, 7, true, false, false, BOOK_IQ4> {};
template <> struct layout_t<DT_IQ3_S> : layout_numbers<4, 0, 16, 4, true, false, false, BOOK_IQ3_S> {};
template <> struct layout_t<DT_IQ3_XXS> : layout_numbers<4, 0, 64, 6, true, false, false, BOOK_IQ3_XXS> {};
template <> struct layout_t<DT_IQ2_XXS> : layout_numbers<2, 1, 64, 6, true, false, false, BOOK_IQ2> {};
template <> struct layout_t<DT_IQ2_XS> : layout_numbers<2, 1, 64, 6, true, true, false, BOOK_IQ2> {};
template <> struct layout_t<DT_IQ2_S> : layout_t<DT_IQ2_XS> {};
template <> struct layout_t<DT_IQ1_S> : layout_numbers<2, 1, 16, 4, true, false, false, BOOK_IQ1> {};
template <> struct layout_t<DT_IQ1_M> : layout_numbers<2, 1, 16, 4, true, true, false, BOOK_IQ1> {};
template <> struct layout_t<DT_TQ1_0> : layout_numbers<2, 0, 1, 0, false, false, false> {};
template <> struct layout_t<DT_TQ2_0> : layout_t<DT_TQ1_0> {};

/* ---- which kernels ---- */

/* The type whose kernels take packed weights of `type`: types that differ in their books alone have one between
 * them. */
constexpr enum dtype packed_like(enum dtype type)
{
    switch (type) {
    case DT_IQ3_S:
    case DT_IQ3_XXS: return DT_IQ4_XS;
    case DT_IQ1_S: return DT_IQ2_XXS;
    case DT_IQ1_M:
    case DT_IQ2_S: return DT_IQ2_XS;
    case DT_TQ1_0: return DT_TQ2_0;
    default: return type;
    }
}

template <enum dtype T> struct dtype_t {
    static constexpr enum dtype value = T;
};

/* Calls f(dtype_t<T>()) for the T whose kernels take packed weights of `type`, which is quantised; nothing for
 * others. */
template <typename F> static inline void with_type(enum dtype type, F &&f)
{
    switch (packed_like(type)) {
    case DT_Q4_0: f(dtype_t<DT_Q4_0>()); break;
    case DT_Q4_1: f(dtype_t<DT_Q4_1>()); break;
    case DT_Q5_0: f(dtype_t<DT_Q5_0>()); break;
    case DT_Q5_1: f(dtype_t<DT_Q5_1>()); break;
    case DT_Q8_0: f(dtype_t<DT_Q8_0>()); break;
    case DT_Q2_K: f(dtype_t<DT_Q2_K>()); break;
    case DT_Q3_K: f(dtype_t<DT_Q3_K>()); break;
    case DT_Q4_K: f(dtype_t<DT_Q4_K>()); break;
    case DT_Q5_K: f(dtype_t<DT_Q5_K>()); break;
    case DT_Q6_K: f(dtype_t<DT_Q6_K>()); break;
    case DT_MXFP4: f(dtype_t<DT_MXFP4>()); break;
    case DT_IQ4_NL: f(dtype_t<DT_IQ4_NL>()); break;
    case DT_IQ4_XS: f(dtype_t<DT_IQ4_XS>()); break;
    case DT_IQ2_XXS: f(dtype_t<DT_IQ2_XXS>()); break;
    case DT_IQ2_XS: f(dtype_t<DT_IQ2_XS>()); break;
    case DT_TQ2_0: f(dtype_t<DT_TQ2_0>()); break;
    default: break;
    }
}

/* The same for F32, F16 and BF16. */
template <typename F> static inline void with_float_type(enum dtype type, F &&f)
{
    switch (type) {
    case DT_F32: f(dtype_t<DT_F32>()); break;
    case DT_F16: f(dtype_t<DT_F16>()); break;
    case DT_BF16: f(dtype_t<DT_BF16>()); break;
    default: break;
    }
}

/* The same for the quantised type that `type` is itself: rows of files differ wherever types do. */
template <typename F> static inline void with_file_type(enum dtype type, F &&f)
{
    switch (type) {
    case DT_IQ3_S: f(dtype_t<DT_IQ3_S>()); break;
    case DT_IQ3_XXS: f(dtype_t<DT_IQ3_XXS>()); break;
    case DT_IQ2_S: f(dtype_t<DT_IQ2_S>()); break;
    case DT_IQ1_S: f(dtype_t<DT_IQ1_S>()); break;
    case DT_IQ1_M: f(dtype_t<DT_IQ1_M>()); break;
    case DT_TQ1_0: f(dtype_t<DT_TQ1_0>()); break;
    default: with_type(type, f); break;
    }
}

__host__ __device__ constexpr bool is_float(enum dtype type)
{
    return type == DT_F32 || type == DT_F16 || type == DT_BF16;
}

/* The same for all of them. */
template <typename F> static inline void with_weight_type(enum dtype type, F &&f)
{
    if (is_float(type))
        with_float_type(type, f);
    else
        with_file_type(type, f);
}

#endif
