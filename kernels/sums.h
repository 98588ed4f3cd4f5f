/* Partial sums packed for a message, SUM_BLOCK values at a time; a block takes SUM_BLOCK * width bytes, where width is
 *
 *   3, 4, 5, 6   exact: integers of that many bytes, in units of 2^-30 (SEGMENT_GRID, kernels/kernels.h)
 *   8            exact: the f64 themselves: one of them is not such an integer (a -0 neither), or not below 2^17
 *   2            rounded: f16 (to nearest even, by way of f32), where the caller asked for it and no value exceeds f16
 *
 * Integers are cut into planes, little-endian, so that they are read as whole vectors:
 *
 *   3   u16 [SUM_BLOCK] low parts, i8 [SUM_BLOCK] high ones      5   u32, i8
 *   4   i32                                                      6   u32, i16
 *
 * The least width is taken. A last block that is not full is filled up with zeros.
 *
 * Every table includes these functions and the compiler vectorises them for its instruction set: they are integer
 * arithmetic and f64 operations that do not round, but for the last addition. */
#ifndef HEARTH_KERNELS_SUMS_H
#define HEARTH_KERNELS_SUMS_H

#include <string.h>

#include "kernels/kernels.h"

/* Added to an integer below 2^51 it leaves that integer in the low bits of the f64. */
#define SUM_MAGIC 0x1.8p52
#define SUM_UNITS 0x1p30

static inline int64_t bits_of_f64(double v)
{
    int64_t bits;
    memcpy(&bits, &v, sizeof bits);
    return bits;
}

/* The integer, where x is a multiple of a unit and small enough. */
static inline int64_t sum_integer(double x)
{
    return (int64_t)((uint64_t)bits_of_f64(x * SUM_UNITS + SUM_MAGIC) - (uint64_t)bits_of_f64(SUM_MAGIC));
}

/* x[0 .. n) filled up to a block. */
static inline const double *sum_block_at(const double *x, int64_t n, double filled[SUM_BLOCK])
{
    if (n >= SUM_BLOCK)
        return x;
    memset(filled, 0, SUM_BLOCK * sizeof *filled);
    memcpy(filled, x, (size_t)n * sizeof *filled);
    return filled;
}

/* NaN is above f16 too: as an integer it is larger than any number. */
static inline bool fits_f16(const double *x)
{
    const int64_t most = bits_of_f64(65504);
    int64_t above = 0; /* negative if so */
    for (int i = 0; i < SUM_BLOCK; i++)
        above |= most - (bits_of_f64(x[i]) & INT64_MAX);
    return above >= 0;
}

static inline uint8_t exact_width(const double *x)
{
    int64_t used = 0, off_grid = 0;
    for (int i = 0; i < SUM_BLOCK; i++) {
        const double units = x[i] * SUM_UNITS;
        const int64_t integer = sum_integer(x[i]);
        off_grid |= bits_of_f64(units) ^ bits_of_f64((units + SUM_MAGIC) - SUM_MAGIC);
        used |= integer ^ -(integer < 0);
    }
    if (off_grid != 0 || used >> 47 != 0) /* what is too large for the magic number, or not finite, is so here too */
        return 8;
    return (uint8_t)(3 + (used >> 23 != 0) + (used >> 31 != 0) + (used >> 39 != 0));
}

static void sum_widths(const double *x, int64_t n, bool f16, uint8_t *width)
{
    double filled[SUM_BLOCK];
    for (int64_t i = 0; i < n; i += SUM_BLOCK) {
        const double *block = sum_block_at(x + i, n - i, filled);
        width[i / SUM_BLOCK] = f16 && fits_f16(block) ? 2 : exact_width(block);
    }
}

static inline void pack_rounded(const double *x, uint8_t *out)
{
    float f[SUM_BLOCK];
    for (int i = 0; i < SUM_BLOCK; i++)
        f[i] = (float)x[i];
    to_f16(f, SUM_BLOCK, (uint16_t *)(void *)out);
}

/* Low parts of 16 bits or 32, high ones of 8 or 16. */
static inline void pack_integers(const double *x, int width, uint8_t *out)
{
    int64_t v[SUM_BLOCK];
    uint16_t *low16 = (uint16_t *)(void *)out;
    uint32_t *low32 = (uint32_t *)(void *)out;
    int8_t *high8 = (int8_t *)out + SUM_BLOCK * (width - 1);
    int16_t *high16 = (int16_t *)(void *)(out + SUM_BLOCK * 4);
    for (int i = 0; i < SUM_BLOCK; i++)
        v[i] = sum_integer(x[i]);
    if (width == 3)
        for (int i = 0; i < SUM_BLOCK; i++)
            low16[i] = (uint16_t)v[i];
    else
        for (int i = 0; i < SUM_BLOCK; i++)
            low32[i] = (uint32_t)v[i];
    if (width == 3)
        for (int i = 0; i < SUM_BLOCK; i++)
            high8[i] = (int8_t)((uint64_t)v[i] >> 16);
    if (width == 5)
        for (int i = 0; i < SUM_BLOCK; i++)
            high8[i] = (int8_t)((uint64_t)v[i] >> 32);
    if (width == 6)
        for (int i = 0; i < SUM_BLOCK; i++)
            high16[i] = (int16_t)((uint64_t)v[i] >> 32);
}

static void pack_sums(const double *x, int64_t n, const uint8_t *width, uint8_t *out)
{
    double filled[SUM_BLOCK];
    for (int64_t i = 0; i < n; i += SUM_BLOCK) {
        const double *block = sum_block_at(x + i, n - i, filled);
        const int w = width[i / SUM_BLOCK];
        if (w == 8)
            memcpy(out, block, SUM_BLOCK * sizeof *block);
        else if (w == 2)
            pack_rounded(block, out);
        else
            pack_integers(block, w, out);
        out += SUM_BLOCK * w;
    }
}

static inline void add_rounded(const uint8_t *in, double *sum)
{
    float f[SUM_BLOCK];
    from_f16((const uint16_t *)(const void *)in, SUM_BLOCK, f);
    for (int i = 0; i < SUM_BLOCK; i++)
        sum[i] += (double)f[i];
}

static inline void add_integers(const uint8_t *in, int width, double *sum)
{
    const double unit = 1 / SUM_UNITS, high_unit = 0x1p32 / SUM_UNITS;
    const uint16_t *low16 = (const uint16_t *)(const void *)in;
    const uint32_t *low32 = (const uint32_t *)(const void *)in;
    const int32_t *whole = (const int32_t *)(const void *)in;
    const int8_t *high8 = (const int8_t *)in + SUM_BLOCK * (width - 1);
    const int16_t *high16 = (const int16_t *)(const void *)(in + SUM_BLOCK * 4);
    if (width == 3)
        for (int i = 0; i < SUM_BLOCK; i++)
            sum[i] += (double)(high8[i] * 0x10000 + low16[i]) * unit;
    else if (width == 4)
        for (int i = 0; i < SUM_BLOCK; i++)
            sum[i] += (double)whole[i] * unit;
    else if (width == 5)
        for (int i = 0; i < SUM_BLOCK; i++)
            sum[i] += (double)high8[i] * high_unit + (double)low32[i] * unit;
    else
        for (int i = 0; i < SUM_BLOCK; i++)
            sum[i] += (double)high16[i] * high_unit + (double)low32[i] * unit;
}

static inline void add_packed_block(const uint8_t *in, int width, double *sum)
{
    if (width == 8)
        for (int i = 0; i < SUM_BLOCK; i++)
            sum[i] += ((const double *)(const void *)in)[i];
    else if (width == 2)
        add_rounded(in, sum);
    else
        add_integers(in, width, sum);
}

static void add_packed(const uint8_t *in, const uint8_t *width, int64_t n, double *sum)
{
    int64_t i = 0;
    for (; i + SUM_BLOCK <= n; i += SUM_BLOCK) {
        add_packed_block(in, width[i / SUM_BLOCK], sum + i);
        in += SUM_BLOCK * width[i / SUM_BLOCK];
    }
    if (i < n) {
        double filled[SUM_BLOCK] = {0};
        memcpy(filled, sum + i, (size_t)(n - i) * sizeof *filled);
        add_packed_block(in, width[i / SUM_BLOCK], filled);
        memcpy(sum + i, filled, (size_t)(n - i) * sizeof *filled);
    }
}

#endif
