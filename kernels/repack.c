#include "kernels/repack.h"

#include "kernels/column_layout.h"
#include "kernels/row_layout.h"

/* ---- rows ---- */

/* Adds a field of a block's codes, whose first word is at `at`. Returns where the next field's are. */
static const uint8_t *take_field(struct field field, size_t word_bytes, const uint8_t *at, uint32_t quad[8])
{
    const uint32_t mask = 0x01010101u * ((1u << field.bits) - 1);
    for (int w = 0; w < field.bits; w++, at += word_bytes) {
        uint32_t word;
        memcpy(&word, at, sizeof word);
        for (int s = 0; s * field.bits < 8; s++)
            quad[s * field.bits + w] |= (word >> (s * field.bits) & mask) << field.shift;
    }
    return at;
}

/* Lane i's scales. */
static void take_scales(struct layout l, struct chunk_place from, int64_t i, struct block *block)
{
    if (!l.k) {
        memcpy(&block->d, from.d + layout_d_bytes(l) * (size_t)i, layout_d_bytes(l));
        if (l.minima)
            memcpy(&block->m, from.m + 2 * i, 2);
        return;
    }
    const uint8_t byte[2] = {from.d[i], layout_m_bytes(l) ? from.m[i] : 0};
    for (int h = 0; h < 2; h++) {
        block->sc[h] = !l.halves ? byte[0] : l.minima ? byte[h] & 15 : byte[h];
        block->mn[h] = !l.halves ? byte[1] : byte[h] >> 4;
    }
    memcpy(&block->d, from.super_d + 2 * (i / SUPER_BLOCKS), 2);
    if (l.minima)
        memcpy(&block->m, from.super_m + 2 * (i / SUPER_BLOCKS), 2);
}

static struct block row_block(const struct neuron_rows *m, int64_t row, int64_t b)
{
    const struct layout l = layout_of(m->type);
    const struct chunk c = chunk_of(m->cols / ACT_BLOCK, b / LANE_BLOCKS);
    const struct part part = top_part(l, false);
    const struct chunk_place from = top_place(l, false, m->top + (size_t)row * m->top_bytes, c);
    const int64_t i = b % LANE_BLOCKS;
    struct block block = {0};
    take_scales(l, from, i, &block);
    const uint8_t *high = take_field(part.low, 4 * (size_t)c.n, from.codes + 4 * i, block.quad);
    take_field(part.high, 4 * (size_t)c.n, high, block.quad);
    return block;
}

void repack_rows(struct packed *m, int64_t group_begin, int64_t group_end, const struct neuron_rows *from)
{
    const struct layout l = layout_of(m->type);
    if (!dtype_is_quantised(m->type)) { /* these rows are the file's */
        packed_fill(m, group_begin, group_end, from->top, from->top_bytes, NULL);
        return;
    }
    for (int64_t g = group_begin; g < group_end; g++) {
        uint8_t *group = m->data + (size_t)g * m->group_bytes;
        memset(group, 0, m->group_bytes);
        for (int r = 0; r < ROW_GROUP && g * ROW_GROUP + r < m->rows; r++) {
            for (int64_t b = 0; b < m->cols / ACT_BLOCK; b++) {
                const struct block block = row_block(from, g * ROW_GROUP + r, b);
                const struct place to = layout_place(l, group, b);
                block_put_codes(l, block.quad, r, to.codes);
                block_put_scales(l, &block, r, to.scales, to.supers);
            }
        }
    }
}

/* ---- columns ---- */

/* Adds a neuron's part of a tile to the bits from `from` on of its codes. */
static void take_part(int bits, int from, const uint8_t *part, uint32_t code[TILE_WORDS])
{
    const uint32_t mask = 0x01010101u * ((1u << bits) - 1);
    for (int w = 0; w < TILE_WORDS; w++) {
        int at, shift;
        uint32_t word;
        part_place(bits, w, &at, &shift);
        memcpy(&word, part + 4 * at, sizeof word);
        code[w] |= (word >> shift & mask) << from;
    }
}

/* A block's codes of a tile, by neuron. */
union tile_codes {
    uint8_t byte[ACT_BLOCK][COLUMN_TILE];
    uint32_t word[ACT_BLOCK][TILE_WORDS];
};

static void take_codes(const struct neuron_columns *m, int64_t b, int64_t tile, union tile_codes *codes)
{
    const struct layout l = layout_of(m->type);
    memset(codes, 0, sizeof *codes);
    for (int c = 0; c < ACT_BLOCK; c++) {
        const uint8_t *from = column_codes(m, m->column[b * ACT_BLOCK + c]);
        take_part(l.low_bits, 0, from + tile * part_bytes(l.low_bits), codes->word[c]);
        if (l.high_bits)
            take_part(l.high_bits, l.low_bits, from + high_at(l, column_tiles(m), tile), codes->word[c]);
    }
}

/* Block b of a tile, whose first group is `group`; scales lie as a packed group has them. */
static void repack_block(struct packed *m, int64_t group, int64_t b, const struct neuron_columns *from,
                         const struct column_range *range)
{
    const struct layout l = layout_of(m->type);
    const int64_t tile = group / TILE_GROUPS;
    const uint8_t *scales = column_scales(from, range, b, tile), *supers = column_supers(from, range, tile);
    union tile_codes codes;
    take_codes(from, b, tile, &codes);
    for (int64_t g = 0; g < TILE_GROUPS && group + g < m->groups; g++) {
        const struct place to = layout_place(l, m->data + (size_t)(group + g) * m->group_bytes, b);
        memcpy(to.scales, scales + g * (int64_t)layout_scale_bytes(l), layout_scale_bytes(l));
        memcpy(to.supers, supers + g * (int64_t)layout_super_bytes(l), layout_super_bytes(l));
        for (int r = 0; r < ROW_GROUP; r++) {
            uint32_t quad[8] = {0};
            for (int c = 0; c < ACT_BLOCK; c++)
                quad[c / 4] |= (uint32_t)codes.byte[c][g * ROW_GROUP + r] << 8 * (c % 4);
            block_put_codes(l, quad, r, to.codes);
        }
    }
}

/* A column is a run of floats, padded to whole tiles; element [column, row] of a group. */
static void repack_floats(struct packed *m, int64_t group, const struct neuron_columns *from)
{
    const size_t size = (size_t)float_bits(m->type) / 8, run = ROW_GROUP * size;
    uint8_t *to = m->data + (size_t)group * m->group_bytes;
    for (int64_t slot = 0; slot < m->cols; slot++)
        memcpy(to + (size_t)slot * run, column_codes(from, from->column[slot]) + (size_t)group * run, run);
}

void repack_columns(struct packed *m, int64_t row_begin, int64_t row_end, const struct neuron_columns *from)
{
    const int64_t begin = row_begin / ROW_GROUP, end = (row_end + ROW_GROUP - 1) / ROW_GROUP;
    memset(m->data + (size_t)begin * m->group_bytes, 0, (size_t)(end - begin) * m->group_bytes);
    if (!columns_read_codes(from)) {
        for (int64_t g = begin; g < end; g++)
            repack_floats(m, g, from);
        return;
    }
    for (int64_t g = begin; g < end; g += TILE_GROUPS)
        for (struct column_range r = {.super = -1}; next_range(from, &r);)
            for (int64_t b = r.begin; b < r.end; b++)
                repack_block(m, g, b, from, &r);
}
