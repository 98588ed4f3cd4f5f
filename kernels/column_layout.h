/* How neurons' columns lie in memory (struct neuron_columns).
 *
 * Outputs come in tiles of COLUMN_TILE; the last is filled up with zeros. A neuron's codes are the low parts of all its
 * tiles, then the high parts. From neuron to neuron it is an odd number of cache lines, so that a tile's parts of many
 * neurons do not compete for a few sets of the caches.
 *
 * Where in a part a code lies makes it cheap to bring four neurons' codes of an output side by side: vector registers
 * interleave bytes within 16-byte lanes only, so 4 outputs of each group of ROW_GROUP share a lane, and parts narrower
 * than a register are meant to be loaded into it several times over.
 *
 * Scales lie by segments, of a segment tile by tile, of a tile block by block: TILE_GROUPS records as a packed group
 * has them (kernels/layout.h). So a kernel that goes through the tiles of a segment reads on and on. Behind all scales
 * are the supers, of each super-block tile by tile.
 *
 * Float weights are parts of 16 or 32 bits, in the order of outputs. A transposed column of codes is the neuron's row
 * of the file as it is. */
#ifndef HEARTH_KERNELS_COLUMN_LAYOUT_H
#define HEARTH_KERNELS_COLUMN_LAYOUT_H

#include "kernels/columns.h"
#include "kernels/layout.h"

enum {
    TILE_GROUPS = COLUMN_TILE / ROW_GROUP,
    TILE_WORDS = COLUMN_TILE / 4, /* words of 4 codes */
    CACHE_LINE = 64,
};

INLINE int64_t column_tiles(const struct neuron_columns *m) { return (m->rows + COLUMN_TILE - 1) / COLUMN_TILE; }

/* Whether activations are read as codes; else as f32. */
INLINE bool columns_read_codes(const struct neuron_columns *m)
{
    return !m->transposed && dtype_is_quantised(m->type);
}

INLINE int float_bits(enum dtype type) { return type == DT_F32 ? 32 : 16; }

/* Bytes of a tile's part of so many bits a code. */
INLINE int64_t part_bytes(int bits) { return (int64_t)bits * COLUMN_TILE / 8; }

/* The codes of outputs 4w .. 4w + 3 of a tile are in word `at` of a part, each in its byte from bit `shift` on. */
INLINE void part_place(int bits, int w, int *at, int *shift)
{
    const int vector = w / 4, lane = w % 4;
    *at = bits == 8 ? 16 * (vector / 4) + 4 * lane + vector % 4 : (4 * lane + vector % 4) % (4 * bits);
    *shift = bits == 8 ? 0 : bits * (lane / bits) + 4 * (vector / 4);
}

/* Bytes of a tile's scales, of its supers. */
INLINE int64_t tile_scale_bytes(struct layout l) { return TILE_GROUPS * (int64_t)layout_scale_bytes(l); }
INLINE int64_t tile_super_bytes(struct layout l) { return TILE_GROUPS * (int64_t)layout_super_bytes(l); }

/* A segment: its blocks and its super-block. */
struct column_range {
    int64_t begin, end; /* blocks */
    int64_t super;
};

/* The segment after `r`, {0} with super -1 before the first; false if there is none. */
static inline bool next_range(const struct neuron_columns *m, struct column_range *r)
{
    const int64_t last = r->end;
    if (last >= m->n_blocks)
        return false;
    r->begin = last;
    r->super += last == 0 || m->block[last] / SUPER_BLOCKS != m->block[last - 1] / SUPER_BLOCKS;
    while (r->end < m->n_blocks && m->block[r->end] / SEGMENT_BLOCKS == m->block[last] / SEGMENT_BLOCKS)
        r->end++;
    return true;
}

INLINE uint8_t *column_codes(const struct neuron_columns *m, int32_t column)
{
    return m->codes + column * (int64_t)m->column_bytes;
}
/* How far a tile's high part is from the neuron's first code. */
INLINE int64_t high_at(struct layout l, int64_t tiles, int64_t tile)
{
    return tiles * part_bytes(l.low_bits) + tile * part_bytes(l.high_bits);
}
/* The scales of block b, the supers of a segment, of a tile. */
INLINE uint8_t *column_scales(const struct neuron_columns *m, const struct column_range *r, int64_t b, int64_t tile)
{
    return m->scales + r->begin * (int64_t)m->block_bytes +
           (tile * (r->end - r->begin) + b - r->begin) * tile_scale_bytes(layout_of(m->type));
}
INLINE uint8_t *column_supers(const struct neuron_columns *m, const struct column_range *r, int64_t tile)
{
    return m->scales + m->n_blocks * (int64_t)m->block_bytes + r->super * (int64_t)m->super_bytes +
           tile * tile_super_bytes(layout_of(m->type));
}

#endif
