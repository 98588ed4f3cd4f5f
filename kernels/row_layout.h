/* How a neuron's row is laid out (kernels/rows.h).
 *
 * A block of 32 columns is a lane. The row's blocks go in chunks of LANE_BLOCKS; the last chunk has the blocks that are
 * left and no more, so that a row takes the bytes that it takes in the file.
 *
 *   codes    of all chunks. A field is some neighbouring bits of a code, 1, 2, 4 or 8; for each a chunk of n blocks has
 *            `bits` words of 4n bytes. Bits s * bits .. of byte 4i + j of word w belong to block i, column j of quad
 *            s * bits + w (kernels/layout.h, with blocks for rows).
 *   scales   of all blocks [nb]: no K: f16 d, then f16 m if the type has minima; K32: u8 scale, u8 min; K16: the bytes
 *            of columns 0..15, then those of 16..31
 *   supers   K types, of all super-blocks [nb / 8]: f16 d, then f16 dmin
 *
 * Codes first: every full chunk's words then begin at a multiple of 64. Float rows are as in the file. Parted in
 * planes, the top part has the field of the top bits and the scales, the rest part fields with the other bits. */
#ifndef HEARTH_KERNELS_ROW_LAYOUT_H
#define HEARTH_KERNELS_ROW_LAYOUT_H

#include "kernels/layout.h"
#include "kernels/rows.h"

/* Bits [shift, shift + bits) of a code; bits 0: no such field. */
struct field {
    uint8_t bits, shift;
};

/* The fields that lie in a part of a row, in this order. */
struct part {
    struct field field[2];
};

INLINE int rest_bits(struct layout l) { return l.low_bits + l.high_bits - TOP_BITS; }

INLINE struct part top_part(struct layout l, bool planes)
{
    if (planes)
        return (struct part){{{TOP_BITS, (uint8_t)rest_bits(l)}, {0, 0}}};
    return (struct part){{{l.low_bits, 0}, {l.high_bits, l.low_bits}}};
}

INLINE struct part rest_part(struct layout l)
{
    const int n = rest_bits(l), low = n >= 4 ? 4 : n >= 2 ? 2 : 1;
    return (struct part){{{(uint8_t)low, 0}, {(uint8_t)(n - low), (uint8_t)low}}};
}

/* Bytes of a block's codes. */
INLINE size_t part_block_bytes(struct part p)
{
    return 4u * (size_t)(p.field[0].bits + p.field[1].bits);
}

/* Where a row of nb blocks has its scales, if its codes lie in `part`. */
struct row_scales {
    uint8_t *d, *m;           /* K types: bytes, of a K16 those of the two halves */
    uint8_t *super_d, *super_m;
};

INLINE struct row_scales row_scales_of(struct layout l, struct part part, uint8_t *row, int64_t nb)
{
    struct row_scales s = {.d = row + (size_t)nb * part_block_bytes(part)};
    s.m = s.d + (size_t)nb * (l.k ? 1 : 2);
    s.super_d = s.m + (size_t)nb;
    s.super_m = s.super_d + (size_t)(nb / SUPER_BLOCKS) * 2;
    return s;
}

/* Blocks of chunk k. */
INLINE int64_t chunk_blocks(int64_t nb, int64_t k)
{
    return nb - k * LANE_BLOCKS < LANE_BLOCKS ? nb - k * LANE_BLOCKS : LANE_BLOCKS;
}

#endif
