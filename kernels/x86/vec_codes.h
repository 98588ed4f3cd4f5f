/* What codes and scales of the types with books mean, in the words of *_vec.h. */
#ifndef HEARTH_KERNELS_X86_VEC_CODES_H
#define HEARTH_KERNELS_X86_VEC_CODES_H

#include "kernels/layout.h"

/* Codes become the bytes that are multiplied. */
INLINE void look_up(struct layout l, int n, vi *codes)
{
    for (int i = 0; i < n && l.book; i++)
        codes[i] = value_bits(l) == 8 ? vi_look_up8(book_values[l.book], codes[i])
                                      : vi_look_up(book_values[l.book], codes[i]);
}

/* f32_of_exponent in each lane. The number of twice that size has e as its exponent; e = 0, which would make it a zero,
 * is the subnormal 2^-127 instead, and e = 255 infinite. Less its half: exact, and a NaN of infinity. */
INLINE vf vf_of_exponents(vi e)
{
    const vf twice = vf_bits(vi_max(vi_shl32(e, 23), vi_set(0x00400000)));
    return vf_fnma(vf_set(0.5f), twice, twice);
}

/* d of 16 rows' blocks of a type without super-blocks. */
INLINE vf load_d(struct layout l, const uint8_t *p)
{
    return has_exponents(l) ? vf_of_exponents(vi_of_u8(p)) : vf_of_f16((const uint16_t *)p);
}

#endif
