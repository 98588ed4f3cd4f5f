/* Storing neurons' columns at load. */
#include "kernels/columns.h"

#include "kernels/column_layout.h"

static size_t float_bytes(enum dtype type) { return type == DT_F32 ? 4 : 2; }

void neuron_columns_shape(struct neuron_columns *m, enum dtype type, bool transposed, int64_t rows, int64_t n_columns,
                          int64_t n_blocks)
{
    m->type = type;
    m->transposed = transposed;
    m->rows = rows;
    m->n_columns = n_columns;
    m->n_blocks = m->n_supers = n_blocks;
    m->block_bytes = m->super_bytes = 0;
    const size_t tiles = (size_t)column_tiles(m);
    if (columns_read_codes(m)) {
        const struct layout l = layout_of(type);
        m->column_bytes = tiles * tile_part_bytes(l.low_bits + l.high_bits);
        m->block_bytes = tiles * tile_scale_bytes(l);
        m->super_bytes = tiles * tile_super_bytes(l);
    } else if (dtype_is_quantised(type)) {
        m->column_bytes = dtype_row_bytes(type, rows);
    } else {
        m->column_bytes = tiles * COLUMN_TILE * float_bytes(type);
    }
    m->column_bytes = (m->column_bytes + 63) / 64 * 64;
}

size_t neuron_columns_code_bytes(const struct neuron_columns *m) { return (size_t)m->n_columns * m->column_bytes; }

size_t neuron_columns_scale_bytes(const struct neuron_columns *m)
{
    return (size_t)m->n_blocks * m->block_bytes + (size_t)m->n_supers * m->super_bytes;
}

/* Bits [from, from + bits) of a neuron's codes of a tile. */
static void put_part(int bits, int from, const uint32_t code[TILE_WORDS], uint8_t *part)
{
    uint32_t word[TILE_WORDS] = {0}, mask = 0x01010101u * ((1u << bits) - 1);
    for (int w = 0; w < TILE_WORDS; w++) {
        int at, shift;
        part_place(bits, w, &at, &shift);
        word[at] |= (code[w] >> from & mask) << shift;
    }
    memcpy(part, word, tile_part_bytes(bits));
}

/* Block b of rows [row, row + n) of a tile: its scales, and the codes of its neurons. */
static void put_block(const struct neuron_columns *m, int64_t b, int64_t super, int64_t row, int64_t n,
                      const uint8_t *src, size_t src_stride)
{
    const struct layout l = layout_of(m->type);
    const int64_t tiles = column_tiles(m), tile = row / COLUMN_TILE;
    uint8_t *scales = m->scales + (size_t)b * m->block_bytes + (size_t)tile * tile_scale_bytes(l);
    uint8_t *supers = m->scales + (size_t)m->n_blocks * m->block_bytes + (size_t)super * m->super_bytes +
                      (size_t)tile * tile_super_bytes(l);
    union {
        uint8_t byte[ACT_BLOCK][COLUMN_TILE];
        uint32_t word[ACT_BLOCK][TILE_WORDS];
    } codes;
    if (n < COLUMN_TILE) {
        memset(&codes, 0, sizeof codes);
        memset(scales, 0, tile_scale_bytes(l));
        memset(supers, 0, tile_super_bytes(l));
    }
    for (int64_t r = 0; r < n; r++) {
        const int64_t group = r / ROW_GROUP;
        struct block block;
        block_decode(m->type, src + (size_t)(row + r) * src_stride, m->block[b], &block);
        block_put_scales(l, &block, (int)(r % ROW_GROUP), scales + (size_t)group * layout_scale_bytes(l),
                         supers + (size_t)group * layout_super_bytes(l));
        for (int c = 0; c < ACT_BLOCK; c++)
            codes.byte[c][r] = (uint8_t)(block.quad[c / 4] >> 8 * (c % 4));
    }
    for (int c = 0; c < ACT_BLOCK; c++) {
        const int32_t column = m->column[b * ACT_BLOCK + c];
        if (column < 0)
            continue;
        uint8_t *to = m->codes + (size_t)column * m->column_bytes;
        put_part(l.low_bits, 0, codes.word[c], to + tile_low(l, tile));
        if (l.high_bits)
            put_part(l.high_bits, l.low_bits, codes.word[c], to + tile_high(l, tiles, tile));
    }
}

static void fill_codes(struct neuron_columns *m, int64_t row_begin, int64_t row_end, const uint8_t *src,
                       size_t src_stride)
{
    for (int64_t row = row_begin; row < row_end; row += COLUMN_TILE) {
        const int64_t n = row + COLUMN_TILE < row_end ? COLUMN_TILE : row_end - row;
        for (int64_t b = 0, super = -1; b < m->n_blocks; b++) {
            super += begins(m, b, SUPER_BLOCKS);
            put_block(m, b, super, row, n, src, src_stride);
        }
    }
}

static int64_t neuron_of(const struct neuron_columns *m, int64_t slot)
{
    return (int64_t)m->block[slot / ACT_BLOCK] * ACT_BLOCK + slot % ACT_BLOCK;
}

/* A column of the file, float weights, becomes a row. */
static void fill_floats(struct neuron_columns *m, int64_t row_begin, int64_t row_end, const uint8_t *src,
                        size_t src_stride)
{
    const size_t size = float_bytes(m->type);
    for (int64_t slot = 0; slot < m->n_blocks * ACT_BLOCK; slot++) {
        if (m->column[slot] < 0)
            continue;
        const uint8_t *from = src + (size_t)neuron_of(m, slot) * size;
        uint8_t *to = m->codes + (size_t)m->column[slot] * m->column_bytes;
        for (int64_t r = row_begin; r < row_end; r++)
            memcpy(to + (size_t)r * size, from + (size_t)r * src_stride, size);
        if (row_end == m->rows)
            memset(to + (size_t)row_end * size, 0, m->column_bytes - (size_t)row_end * size);
    }
}

/* A row of the file stays what it is. A block that a cut goes through belongs to the range that it begins in. */
static void fill_transposed(struct neuron_columns *m, int64_t row_begin, int64_t row_end, const uint8_t *src,
                            size_t src_stride)
{
    const int64_t block = dtype_block(m->type);
    const size_t begin = dtype_row_bytes(m->type, (row_begin + block - 1) / block * block);
    const size_t end = dtype_row_bytes(m->type, (row_end + block - 1) / block * block);
    const size_t pad = row_end == m->rows ? m->column_bytes - end : 0;
    for (int64_t slot = 0; slot < m->n_blocks * ACT_BLOCK; slot++) {
        if (m->column[slot] < 0)
            continue;
        uint8_t *to = m->codes + (size_t)m->column[slot] * m->column_bytes;
        memcpy(to + begin, src + (size_t)neuron_of(m, slot) * src_stride + begin, end - begin);
        memset(to + end, 0, pad);
    }
}

void neuron_columns_fill(struct neuron_columns *m, int64_t row_begin, int64_t row_end, const uint8_t *src,
                         size_t src_stride)
{
    if (columns_read_codes(m))
        fill_codes(m, row_begin, row_end, src, src_stride);
    else if (m->transposed)
        fill_transposed(m, row_begin, row_end, src, src_stride);
    else
        fill_floats(m, row_begin, row_end, src, src_stride);
}
