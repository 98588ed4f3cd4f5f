/* How neurons' columns lie in memory (struct neuron_columns).
 *
 * Outputs come in tiles of COLUMN_TILE; the last is filled up with zeros. A neuron's codes are the low parts of all
 * tiles, then the high parts. Where in a tile's part a code lies makes it cheap to bring four neurons' codes of an output
 * side by side: vector registers interleave bytes within 16-byte lanes only, so 4 outputs of each group of ROW_GROUP
 * share a lane, and parts narrower than a register are meant to be loaded into it several times over.
 *
 * A block's scales are, for each tile, TILE_GROUPS records as a packed group has them (kernels/layout.h), and so are the
 * supers of a super-block; those lie behind all scales.
 *
 * Float weights are rows of a column after another, and a transposed column is its row of the file. */
#ifndef HEARTH_KERNELS_COLUMN_LAYOUT_H
#define HEARTH_KERNELS_COLUMN_LAYOUT_H

#include "kernels/columns.h"
#include "kernels/layout.h"

enum {
    TILE_GROUPS = COLUMN_TILE / ROW_GROUP,
    TILE_WORDS = COLUMN_TILE / 4, /* words of 4 codes */
};

INLINE int64_t column_tiles(const struct neuron_columns *m) { return (m->rows + COLUMN_TILE - 1) / COLUMN_TILE; }

/* Whether activations are read as codes; else as f32. */
INLINE bool columns_read_codes(const struct neuron_columns *m)
{
    return !m->transposed && dtype_is_quantised(m->type);
}

/* Bytes of a tile's part with so many bits of each code, of its scales, of its supers. */
INLINE size_t tile_part_bytes(int bits) { return (size_t)bits * COLUMN_TILE / 8; }
INLINE size_t tile_scale_bytes(struct layout l) { return TILE_GROUPS * layout_scale_bytes(l); }
INLINE size_t tile_super_bytes(struct layout l) { return TILE_GROUPS * layout_super_bytes(l); }

/* A tile's low and high part in a neuron's codes. */
INLINE size_t tile_low(struct layout l, int64_t tile) { return (size_t)tile * tile_part_bytes(l.low_bits); }
INLINE size_t tile_high(struct layout l, int64_t tiles, int64_t tile)
{
    return (size_t)tiles * tile_part_bytes(l.low_bits) + (size_t)tile * tile_part_bytes(l.high_bits);
}

/* The codes of outputs 4w .. 4w + 3 of a tile are in word `at` of a part, each in its byte from bit `shift` on. */
INLINE void part_place(int bits, int w, int *at, int *shift)
{
    const int vector = w / 4, lane = w % 4;
    *at = bits == 8 ? 16 * (vector / 4) + 4 * lane + vector % 4 : (4 * lane + vector % 4) % (4 * bits);
    *shift = bits == 8 ? 0 : bits * (lane / bits) + 4 * (vector / 4);
}

/* Whether block b begins a segment, a super-block. */
INLINE bool begins(const struct neuron_columns *m, int64_t b, int blocks)
{
    return b == 0 || m->block[b] / blocks != m->block[b - 1] / blocks;
}

#endif
