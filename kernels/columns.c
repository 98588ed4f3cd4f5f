/* Storing neurons' columns at load. */
#include "kernels/columns.h"

#include "kernels/column_layout.h"

void neuron_columns_shape(struct neuron_columns *m, enum dtype type, bool transposed, int64_t rows, int64_t n_columns,
                          int64_t n_blocks)
{
    m->type = type;
    m->transposed = transposed;
    m->rows = rows;
    m->n_columns = n_columns;
    m->n_blocks = m->n_supers = n_blocks;
    m->block_bytes = m->super_bytes = 0;
    const int64_t tiles = column_tiles(m);
    if (columns_read_codes(m)) {
        const struct layout l = layout_of(type);
        m->column_bytes = (size_t)(tiles * part_bytes(l.low_bits + l.high_bits));
        m->block_bytes = (size_t)(tiles * tile_scale_bytes(l));
        m->super_bytes = (size_t)(tiles * tile_super_bytes(l));
    } else if (dtype_is_quantised(type)) {
        m->column_bytes = dtype_row_bytes(type, rows);
    } else {
        m->column_bytes = (size_t)(tiles * part_bytes(float_bits(type)));
    }
    m->column_bytes = ((m->column_bytes + CACHE_LINE - 1) / CACHE_LINE | 1) * CACHE_LINE;
}

size_t neuron_columns_code_bytes(const struct neuron_columns *m) { return (size_t)m->n_columns * m->column_bytes; }

size_t neuron_columns_scale_bytes(const struct neuron_columns *m)
{
    return (size_t)m->n_blocks * m->block_bytes + (size_t)m->n_supers * m->super_bytes;
}

/* Where a tensor of the file begins, and its bytes from row to row. */
struct source {
    const uint8_t *data;
    size_t stride;
};

/* Bits [from, from + bits) of a neuron's codes of a tile. */
INLINE void put_part(int bits, int from, const uint32_t code[TILE_WORDS], uint8_t *part)
{
    uint32_t word[TILE_WORDS] = {0};
    const uint32_t mask = 0x01010101u * ((1u << bits) - 1);
    for (int w = 0; w < TILE_WORDS; w++) {
        int at, shift;
        part_place(bits, w, &at, &shift);
        word[at] |= (code[w] >> from & mask) << shift;
    }
    memcpy(part, word, (size_t)part_bytes(bits));
}

/* A block's codes of a tile, by neuron. */
union tile_codes {
    uint8_t byte[ACT_BLOCK][COLUMN_TILE];
    uint32_t word[ACT_BLOCK][TILE_WORDS];
};

INLINE void put_codes(enum dtype type, const struct neuron_columns *m, int64_t b, int64_t tile,
                      const union tile_codes *codes)
{
    const struct layout l = layout_of(type);
    for (int c = 0; c < ACT_BLOCK; c++) {
        const int32_t column = m->column[b * ACT_BLOCK + c];
        if (column < 0)
            continue;
        uint8_t *to = column_codes(m, column);
        put_part(l.low_bits, 0, codes->word[c], to + tile * part_bytes(l.low_bits));
        if (l.high_bits)
            put_part(l.high_bits, l.low_bits, codes->word[c], to + high_at(l, column_tiles(m), tile));
    }
}

static void put_codes_of(const struct neuron_columns *m, int64_t b, int64_t tile, const union tile_codes *codes)
{
    /* Told the type as a constant, the compiler knows where each word goes. */
    switch (m->type) {
    case DT_Q4_0: put_codes(DT_Q4_0, m, b, tile, codes); return;
    case DT_Q4_K: put_codes(DT_Q4_K, m, b, tile, codes); return;
    case DT_Q6_K: put_codes(DT_Q6_K, m, b, tile, codes); return;
    case DT_Q8_0: put_codes(DT_Q8_0, m, b, tile, codes); return;
    default: put_codes(m->type, m, b, tile, codes); return;
    }
}

/* Rows [row, row + n) of a tile of block b. */
static void put_block(const struct neuron_columns *m, const struct column_range *range, int64_t b, int64_t row,
                      int64_t n, struct source src)
{
    const struct layout l = layout_of(m->type);
    const int64_t tile = row / COLUMN_TILE;
    uint8_t *scales = column_scales(m, range, b, tile), *supers = column_supers(m, range, tile);
    union tile_codes codes;
    if (n < COLUMN_TILE) {
        memset(&codes, 0, sizeof codes);
        memset(scales, 0, (size_t)tile_scale_bytes(l));
        memset(supers, 0, (size_t)tile_super_bytes(l));
    }
    for (int64_t r = 0; r < n; r++) {
        const size_t group = (size_t)(r / ROW_GROUP);
        struct block block;
        block_decode(m->type, src.data + (size_t)(row + r) * src.stride, m->block[b], &block);
        block_put_scales(l, &block, (int)(r % ROW_GROUP), scales + group * layout_scale_bytes(l),
                         supers + group * layout_super_bytes(l));
        for (int c = 0; c < ACT_BLOCK; c++)
            codes.byte[c][r] = (uint8_t)(block.quad[c / 4] >> 8 * (c % 4));
    }
    put_codes_of(m, b, tile, &codes);
}

static int64_t neuron_of(const struct neuron_columns *m, int64_t slot)
{
    return (int64_t)m->block[slot / ACT_BLOCK] * ACT_BLOCK + slot % ACT_BLOCK;
}

/* Rows [row, row + n), a tile, of a neuron: a column of the file becomes a run. */
static void put_floats(const struct neuron_columns *m, int64_t slot, int64_t row, int64_t n, struct source src)
{
    const size_t size = (size_t)float_bits(m->type) / 8;
    const uint8_t *from = src.data + (size_t)row * src.stride + (size_t)neuron_of(m, slot) * size;
    uint8_t *to = column_codes(m, m->column[slot]) + (size_t)row * size;
    memset(to, 0, COLUMN_TILE * size);
    for (int64_t r = 0; r < n; r++)
        memcpy(to + (size_t)r * size, from + (size_t)r * src.stride, size);
}

static void put_tile(const struct neuron_columns *m, const struct column_range *range, int64_t row, int64_t n,
                     struct source src)
{
    for (int64_t b = range->begin; b < range->end; b++) {
        if (columns_read_codes(m)) {
            put_block(m, range, b, row, n, src);
            continue;
        }
        for (int64_t slot = b * ACT_BLOCK; slot < (b + 1) * ACT_BLOCK; slot++)
            if (m->column[slot] >= 0)
                put_floats(m, slot, row, n, src);
    }
}

/* A row of the file stays what it is. A block that a cut goes through belongs to the range that it begins in. */
static void put_rows(const struct neuron_columns *m, int64_t row_begin, int64_t row_end, struct source src)
{
    const int64_t block = dtype_block(m->type);
    const size_t begin = dtype_row_bytes(m->type, (row_begin + block - 1) / block * block);
    const size_t end = dtype_row_bytes(m->type, (row_end + block - 1) / block * block);
    const size_t pad = row_end == m->rows ? m->column_bytes - end : 0;
    for (int64_t slot = 0; slot < m->n_blocks * ACT_BLOCK; slot++) {
        if (m->column[slot] < 0)
            continue;
        uint8_t *to = column_codes(m, m->column[slot]);
        memcpy(to + begin, src.data + (size_t)neuron_of(m, slot) * src.stride + begin, end - begin);
        memset(to + end, 0, pad);
    }
}

void neuron_columns_fill(struct neuron_columns *m, int64_t row_begin, int64_t row_end, const uint8_t *src,
                         size_t src_stride)
{
    const struct source source = {src, src_stride};
    if (m->transposed) {
        put_rows(m, row_begin, row_end, source);
        return;
    }
    for (int64_t row = row_begin; row < row_end; row += COLUMN_TILE)
        for (struct column_range r = {.super = -1}; next_range(m, &r);)
            put_tile(m, &r, row, row + COLUMN_TILE < row_end ? COLUMN_TILE : row_end - row, source);
}
