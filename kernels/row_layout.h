/* How a neuron's row is laid out (kernels/rows.h).
 *
 * A block of 32 columns is a lane. The row's blocks go in chunks of LANE_BLOCKS; the last chunk has the blocks that are
 * left and no more, so that a row takes the bytes that it takes in the file. A chunk of n blocks is
 *
 *   supers   K types: f16 d of its super-blocks, then f16 dmin if the type has minima
 *   scales   no K: f16 d [n] (MXFP4: u8), then f16 m [n] if the type has minima; K32: u8 scale [n], u8 min [n], without
 *            minima i8 scale [n]; K16: the bytes of columns 0..15 [n], then those of 16..31 [n]
 *   codes    by fields. A field is some neighbouring bits of a code, 1, 2, 4 or 8; it has `bits` words of 4n bytes.
 *            Bits s * bits .. of byte 4i + j of word w belong to block i, column j of quad s * bits + w
 *            (kernels/layout.h, with blocks for rows).
 *
 * so that a row is one stream, as a packed group is. Float rows are as in the file. Parted in planes, the top part has
 * the scales and the fields of the top bits, the rest part fields with the other bits. */
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
    struct field low, high;
};

/* dtype_top_bits; Q8_0 alone has codes of 8 bits. */
INLINE int top_bits(struct layout l) { return l.low_bits == 8 || l.minima ? 3 : 2; }
INLINE int rest_bits(struct layout l) { return l.low_bits + l.high_bits - top_bits(l); }

/* The lowest n bits of a code: the largest field that they fill, then one with the others. */
INLINE struct part lowest_bits(int n)
{
    const int low = n >= 4 ? 4 : n >= 2 ? 2 : 1;
    return (struct part){{(uint8_t)low, 0}, {(uint8_t)(n - low), (uint8_t)low}};
}

/* The top bits as numbers of their own. */
INLINE struct part bare_top_part(struct layout l) { return lowest_bits(top_bits(l)); }

INLINE struct part top_part(struct layout l, bool planes)
{
    struct part p = {{l.low_bits, 0}, {l.high_bits, l.low_bits}};
    if (planes) {
        p = bare_top_part(l);
        p.low.shift = (uint8_t)(p.low.shift + rest_bits(l));
        p.high.shift = (uint8_t)(p.high.shift + rest_bits(l));
    }
    return p;
}

INLINE struct part rest_part(struct layout l) { return lowest_bits(rest_bits(l)); }

/* Bytes of a block's codes. */
INLINE size_t part_block_bytes(struct part p)
{
    return 4u * (size_t)(p.low.bits + p.high.bits);
}

/* A chunk of a row: its number, its blocks. In vector code `full`, a constant, says that it has LANE_BLOCKS. */
struct chunk {
    int64_t k, n;
    bool full;
};

INLINE struct chunk chunk_of(int64_t nb, int64_t k)
{
    const int64_t left = nb - k * LANE_BLOCKS;
    return (struct chunk){k, left < LANE_BLOCKS ? left : LANE_BLOCKS, false};
}

/* Where a chunk has its scales and its codes. Of a K16, `d` and `m` are the bytes of the two halves. */
struct chunk_place {
    uint8_t *super_d, *super_m, *d, *m, *codes;
};

INLINE struct chunk_place top_place(struct layout l, bool planes, uint8_t *row, struct chunk c)
{
    const size_t n = (size_t)c.n, n_supers = l.k ? n / SUPER_BLOCKS : 0, k = (size_t)c.k;
    const size_t supers = l.k ? layout_super_bytes(l) / SUPER_BLOCKS : 0; /* of a full chunk */
    struct chunk_place p;
    p.super_d = row + k * (supers + layout_scale_bytes(l) + LANE_BLOCKS * part_block_bytes(top_part(l, planes)));
    p.super_m = p.super_d + 2 * n_supers;
    p.d = p.super_m + (l.minima ? 2 * n_supers : 0);
    p.m = p.d + n * layout_d_bytes(l);
    p.codes = p.m + n * layout_m_bytes(l);
    return p;
}

INLINE const uint8_t *rest_codes(struct layout l, const uint8_t *row, struct chunk c)
{
    return row + (size_t)c.k * LANE_BLOCKS * part_block_bytes(rest_part(l));
}

#endif
