/* The tables there are; select.c picks one. */
#ifndef HEARTH_KERNELS_TABLES_H
#define HEARTH_KERNELS_TABLES_H

#include "kernels/kernels.h"

extern const struct kernels kernels_scalar;
extern const struct kernels kernels_avx2;   /* AVX2, FMA, F16C */
extern const struct kernels kernels_avx512; /* AVX-512 F, BW, DQ, VL, VNNI */

#endif
