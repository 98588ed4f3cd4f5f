/* Books: the values that codes of types which space them unevenly are numbers of.
 *
 * A book holds bytes without a sign, value + offset, where the offset is a power of two that leaves none below zero: so
 * products are those of codes with an offset (kernels/layout.h), after one look-up of 16 bytes. */
#ifndef HEARTH_KERNELS_BOOK_H
#define HEARTH_KERNELS_BOOK_H

#include <stdint.h>

enum book {
    NO_BOOK,      /* codes are values themselves */
    BOOK_MXFP4,   /* twice the numbers of 4 bits with a sign, 2 bits of exponent and 1 of mantissa */
    BOOK_IQ4,     /* IQ4_NL and IQ4_XS: denser around zero, as weights are */
    BOOK_IQ3_S,   /* of the types with grids (kernels/grids.h) the upper half has the other sign */
    BOOK_IQ3_XXS, /* four times the values */
    BOOK_IQ2,     /* eight times; codes of 3 bits: three magnitudes */
    BOOK_IQ1,     /* eight times; codes of 3 bits: -1, 0 and 1, shifted up or down by an eighth */
    BOOKS
};

#define BOOK(o, a, b, c, d, e, f, g, h, i, j, k, l, m, n, p, q)                                                        \
    {a + o, b + o, c + o, d + o, e + o, f + o, g + o, h + o, i + o, j + o, k + o, l + o, m + o, n + o, p + o, q + o}

/* An initialiser, so that GPUs can have the same table in their memory. */
#define BOOK_VALUES                                                                                                    \
    {                                                                                                                  \
        {0},                                                                                                           \
        BOOK(16, 0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12),                                             \
        BOOK(128, -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113),                           \
        BOOK(16, 1, 3, 5, 7, 9, 11, 13, 15, -1, -3, -5, -7, -9, -11, -13, -15),                                        \
        BOOK(64, 4, 12, 20, 28, 36, 44, 52, 62, -4, -12, -20, -28, -36, -44, -52, -62),                                \
        BOOK(64, 8, 25, 43, 0, -8, -25, -43, 0, 0, 0, 0, 0, 0, 0, 0, 0),                                               \
        BOOK(16, -7, 1, 9, 0, -9, -1, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0),                                                   \
    }

static const uint8_t book_values[BOOKS][16] = BOOK_VALUES;

#endif
