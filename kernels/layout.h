/* How a packed group of 16 rows is laid out, and what a block of 32 columns contributes to its rows' sums.
 *
 * A group is a run of blocks, each its scales and then its codes: one stream that a kernel reads from front to back and
 * the hardware prefetches. (Scales apart from their codes cost a third of the speed.) Groups of K types have supers
 * in front of every 8 blocks.
 *
 *   supers   K types: f16 d[16] (and f16 dmin[16] if the type has minima)
 *   scales   [16 rows] each:
 *              no K:  f16 d                 (and f16 m if the type has minima)
 *              MXFP4: u8 e, which says d = 2^(e - 128) (255: NaN)
 *              K32:   u8 scale, u8 min      (one of each for the 32 columns); without minima i8 scale alone
 *              K16:   i8 scale for columns 0..15, i8 scale for 16..31
 *              K16 with minima: the same, each byte scale | min << 4
 *   codes    low part, then high part. A quad is 4 neighbouring columns; quad q holds columns 4q .. 4q+3;
 *            byte 4r + j of every 64-byte word belongs to row r, column j of a quad.
 *              low 8 bits: 8 words, word q is quad q                                                (512 bytes)
 *              low 4 bits: 4 words, low nibbles of word i are quad i, high nibbles quad i + 4       (256 bytes)
 *              low 2 bits: 2 words, bits 2s, 2s+1 of word h are quad 2s + h                         (128 bytes)
 *              high 2 bits: the same as low 2 bits;  high 1 bit: 1 word, bit q is quad q            (64 bytes)
 *
 * The codes of a type with a book are numbers of its values: where "code" stands below, it is book[code] (which is that
 * value + offset, so that bytes without a sign are multiplied; kernels/book.h).
 *
 * What columns contribute to a row, in this order (s = the activation block of 32 columns):
 *   no K:  every block: isum = sum of (code - offset) * activation code, exact in i32
 *          acc = fma((float)isum, d * s.scale, acc);  with minima then acc = fma(m, s.scaled_sum, acc)
 * K:     every half of a super-block (4 blocks, or those of them that a segment has): t = sum over a block's one or two
 *          scales of scale * isum, exact in i32 and in f32; from +0, over its blocks,
 *          a = fma((float)t, s.scale, a);  with minima also n = fma((float)min, s.scaled_sum, n), of two minima the one
 *          of columns 0..15 first, whose scaled sums are s.scale * (float)(sum of the 16 codes), rounded once
 *          then acc = fma(d, a, acc);  with minima then acc = fma(-dmin, n, acc) */
#ifndef HEARTH_KERNELS_LAYOUT_H
#define HEARTH_KERNELS_LAYOUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include "kernels/book.h"
#include "kernels/kernels.h"

/* A function that must vanish into its caller: what it is told in constants then costs nothing. */
#define INLINE static inline __attribute__((always_inline))

struct layout {
    uint8_t low_bits, high_bits; /* bits of a code in its low and in its high part */
    uint8_t offset;              /* value = D * (code - offset) + M; a power of two or 0 */
    uint8_t offset_shift;        /* log2(offset) */
    bool k, halves, minima;      /* super-blocks; a scale per 16 columns; M present */
    enum book book;              /* what codes are numbers of */
};

/* Constant-folds when `type` is a constant, which is how one matmul serves all types. */
INLINE struct layout layout_of(enum dtype type)
{
    switch (type) {
    case DT_Q4_0: return (struct layout){4, 0, 8, 3, false, false, false, NO_BOOK};
    case DT_Q4_1: return (struct layout){4, 0, 0, 0, false, false, true, NO_BOOK};
    case DT_Q5_0: return (struct layout){4, 1, 16, 4, false, false, false, NO_BOOK};
    case DT_Q5_1: return (struct layout){4, 1, 0, 0, false, false, true, NO_BOOK};
    case DT_Q2_K: return (struct layout){2, 0, 0, 0, true, true, true, NO_BOOK};
    case DT_Q3_K: return (struct layout){2, 1, 4, 2, true, true, false, NO_BOOK};
    case DT_Q4_K: return (struct layout){4, 0, 0, 0, true, false, true, NO_BOOK};
    case DT_Q5_K: return (struct layout){4, 1, 0, 0, true, false, true, NO_BOOK};
    case DT_Q6_K: return (struct layout){4, 2, 32, 5, true, true, false, NO_BOOK};
    case DT_IQ4_NL: return (struct layout){4, 0, 128, 7, false, false, false, BOOK_IQ4};
    case DT_IQ4_XS: return (struct layout){4, 0, 128, 7, true, false, false, BOOK_IQ4};
    case DT_IQ3_S: return (struct layout){4, 0, 16, 4, true, false, false, BOOK_IQ3_S};
    case DT_IQ3_XXS: return (struct layout){4, 0, 64, 6, true, false, false, BOOK_IQ3_XXS};
    case DT_IQ2_XXS: return (struct layout){2, 1, 64, 6, true, false, false, BOOK_IQ2};
    case DT_IQ2_XS:
    case DT_IQ2_S: return (struct layout){2, 1, 64, 6, true, true, false, BOOK_IQ2};
    case DT_IQ1_S: return (struct layout){2, 1, 16, 4, true, false, false, BOOK_IQ1};
    case DT_IQ1_M: return (struct layout){2, 1, 16, 4, true, true, false, BOOK_IQ1};
    case DT_TQ1_0:
    case DT_TQ2_0: return (struct layout){2, 0, 1, 0, false, false, false, NO_BOOK};
    case DT_MXFP4: return (struct layout){4, 0, 16, 4, false, false, false, BOOK_MXFP4};
    default: return (struct layout){8, 0, 128, 7, false, false, false, NO_BOOK}; /* DT_Q8_0 */
    }
}

enum {
    SUPER_BLOCKS = 8,                         /* blocks of a K type's super-block */
    HALF_BLOCKS = SUPER_BLOCKS / 2,           /* blocks that are summed before the super-block's scale is applied */
    SEGMENT_BLOCKS = SUM_SEGMENT / ACT_BLOCK, /* blocks of a segment */
};

/* Bits of what is multiplied: of a code, or of a value of its book. */
INLINE int value_bits(struct layout l) { return l.book ? l.offset_shift + 1 : l.low_bits + l.high_bits; }
/* What a code says, less the offset. */
INLINE int value_of(struct layout l, int code) { return (l.book ? book_values[l.book][code] : code) - l.offset; }

/* What the scale of a super-block is multiplied with: book's values may be multiples of those that are meant. */
INLINE float super_unit(struct layout l)
{
    return l.book == BOOK_IQ3_XXS ? 0.25f : l.book == BOOK_IQ2 || l.book == BOOK_IQ1 ? 0.125f : 1.0f;
}

/* Whether the scales of a type without super-blocks are exponents. */
INLINE bool has_exponents(struct layout l) { return l.book == BOOK_MXFP4; }
/* Bytes of a row's scales of a block: of d (of a K type the scale), of m (the minimum, or the other half's scale). */
INLINE size_t layout_d_bytes(struct layout l) { return l.k || has_exponents(l) ? 1 : 2; }
INLINE size_t layout_m_bytes(struct layout l) { return l.k ? l.halves || l.minima : l.minima ? 2 : 0; }

/* Bytes of one block's codes, of one block's scales, of one super-block's supers. */
INLINE size_t layout_code_bytes(struct layout l)
{
    return 64u * (size_t)(l.low_bits + l.high_bits);
}
INLINE size_t layout_scale_bytes(struct layout l)
{
    return ROW_GROUP * (layout_d_bytes(l) + layout_m_bytes(l));
}
INLINE size_t layout_super_bytes(struct layout l)
{
    return !l.k ? 0 : l.minima ? 4 * ROW_GROUP : 2 * ROW_GROUP;
}

/* Block b of a group. */
struct place {
    uint8_t *supers, *scales, *codes;
};

INLINE struct place layout_place(struct layout l, uint8_t *group, int64_t b)
{
    const size_t block = layout_scale_bytes(l) + layout_code_bytes(l);
    if (layout_super_bytes(l) == 0) { /* the same, in less arithmetic */
        uint8_t *const at = group + (size_t)b * block;
        return (struct place){at, at, at + layout_scale_bytes(l)};
    }
    struct place p = {.supers = group + (size_t)(b / SUPER_BLOCKS) * (layout_super_bytes(l) + SUPER_BLOCKS * block)};
    p.scales = p.supers + layout_super_bytes(l) + (size_t)(b % SUPER_BLOCKS) * block;
    p.codes = p.scales + layout_scale_bytes(l);
    return p;
}

/* One block of 32 columns of one row as the file has it. */
struct block {
    uint32_t quad[8];    /* codes, a byte each */
    uint16_t d, m;       /* f16: scale (of MXFP4 its exponent), and m or dmin (0 if the type has none) */
    uint8_t sc[2], mn[2]; /* K types: scales, minima of the halves (equal for one scale); i8 without minima */
};

/* Decodes block `index` (of 32 columns) of a row that starts at src, in the file's layout (ggml's block types). */
void block_decode(enum dtype type, const uint8_t *src, int64_t index, struct block *b);
/* Writes the codes of row r of a group of ROW_GROUP into a block's. */
void block_put_codes(struct layout l, const uint32_t quad[8], int r, uint8_t *codes);
/* Writes the scales of row r of a group, and its supers. */
void block_put_scales(struct layout l, const struct block *b, int r, uint8_t *scales, uint8_t *supers);
/* Dequantises block `index` of a row, as dequantize_row does. */
void block_dequantize(enum dtype type, const uint8_t *src, int64_t index, float *out /* [32] f32 */);

static inline float f32_of_bits(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static inline float f32_of_bf16(uint16_t h) { return f32_of_bits((uint32_t)h << 16); }

static inline float f32_of_f16(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, mantissa = h & 0x3ff;
    if (exponent == 31)
        return f32_of_bits(sign | 0x7f800000 | mantissa << 13);
    if (exponent)
        return f32_of_bits(sign | (exponent + 112) << 23 | mantissa << 13);
    float f = (float)mantissa * 0x1p-24f; /* subnormal: exact */
    return sign ? -f : f;
}

static inline float f16_at(const uint8_t *p, int i)
{
    uint16_t h;
    memcpy(&h, p + 2 * i, 2);
    return f32_of_f16(h);
}

/* d of MXFP4. Of 0 and 1 it is subnormal. */
static inline float f32_of_exponent(uint8_t e)
{
    return f32_of_bits(e == 255 ? 0x7fc00000 : e < 2 ? 0x00200000u << e : (uint32_t)(e - 1) << 23);
}

/* d of row r of a block of a type without super-blocks, as the scales have it; d that `struct block` has. */
static inline float d_at(struct layout l, const uint8_t *scales, int r)
{
    return has_exponents(l) ? f32_of_exponent(scales[r]) : f16_at(scales, r);
}
static inline float d_of(struct layout l, uint16_t d)
{
    return has_exponents(l) ? f32_of_exponent((uint8_t)d) : super_unit(l) * f32_of_f16(d);
}

/* d of row r's super-block. */
static inline float super_d_at(struct layout l, const uint8_t *supers, int r)
{
    return super_unit(l) * f16_at(supers, r);
}

/* A K type's scale from its byte. */
INLINE int k_scale_of(struct layout l, uint8_t byte)
{
    return !l.minima ? (int8_t)byte : l.halves ? byte & 15 : byte;
}

/* The scale and the minimum (0: none) of row r, half h of a K type's block. */
static inline void k_scale_at(struct layout l, const uint8_t *scales, int h, int r, int *scale, int *min)
{
    const uint8_t byte = scales[h * ROW_GROUP + r];
    *scale = k_scale_of(l, byte);
    *min = !l.minima ? 0 : l.halves ? byte >> 4 : scales[ROW_GROUP + r];
}

/* The first of the units that follow one another which i is not in any more, or `end`: whichever comes first. */
INLINE int64_t unit_end(int64_t i, int64_t unit, int64_t end)
{
    const int64_t stop = (i / unit + 1) * unit;
    return stop < end ? stop : end;
}

/* Round to nearest even, as the hardware's conversion does. */
static inline uint16_t f16_of_f32(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    uint16_t sign = (uint16_t)(u >> 16 & 0x8000);
    u &= 0x7fffffff;
    if (u > 0x7f800000)
        return (uint16_t)(sign | 0x7e00 | (u >> 13 & 0x3ff));
    if (u >= 0x477ff000) /* 65520 and above round to infinity */
        return sign | 0x7c00;
    if (u < 0x38800000) { /* subnormal: the add of 2^-1 aligns and rounds the mantissa */
        float a = f32_of_bits(u) + 0.5f;
        memcpy(&u, &a, sizeof u);
        return (uint16_t)(sign | (u - 0x3f000000));
    }
    u += 0xfff + (u >> 13 & 1);
    return (uint16_t)(sign | ((u - 0x38000000) >> 13));
}

#endif
