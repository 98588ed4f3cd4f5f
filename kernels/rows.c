/* Storing neurons' rows, and the arrangement of activations that goes with them. */
#include "kernels/rows.h"

#include "kernels/row_layout.h"

int dtype_top_bits(enum dtype type) { return top_bits(layout_of(type)); }

bool dtype_has_planes(enum dtype type)
{
    const struct layout l = layout_of(type);
    return dtype_is_quantised(type) && !l.book && rest_bits(l) > 0;
}

static size_t whole_lines(size_t bytes) { return (bytes + 63) / 64 * 64; }

/* Bytes of a row's scales and supers. */
static size_t scales_bytes(struct layout l, size_t nb)
{
    return nb * layout_scale_bytes(l) / ROW_GROUP + nb / SUPER_BLOCKS * layout_super_bytes(l) / ROW_GROUP;
}

void neuron_rows_shape(struct neuron_rows *m, enum dtype type, int64_t rows, int64_t cols, bool planes)
{
    *m = (struct neuron_rows){.type = type, .rows = rows, .cols = cols, .planes = planes};
    if (!dtype_is_quantised(type)) {
        m->top_bytes = whole_lines((size_t)cols * (type == DT_F32 ? 4 : 2));
        return;
    }
    const struct layout l = layout_of(type);
    const size_t nb = (size_t)cols / ACT_BLOCK;
    m->top_bytes = whole_lines(nb * part_block_bytes(top_part(l, planes)) + scales_bytes(l, nb));
    if (planes)
        m->rest_bytes = whole_lines(nb * part_block_bytes(rest_part(l)));
}

/* Writes a field of a block's codes, its first word to `at`. Returns where the next field's are. */
static uint8_t *put_field(struct field field, const uint32_t quad[8], size_t word_bytes, uint8_t *at)
{
    const uint32_t mask = 0x01010101u * ((1u << field.bits) - 1);
    for (int w = 0; w < field.bits; w++, at += word_bytes) {
        uint32_t word = 0;
        for (int s = 0; s * field.bits < 8; s++)
            word |= (quad[s * field.bits + w] >> field.shift & mask) << (s * field.bits);
        memcpy(at, &word, sizeof word);
    }
    return at;
}

/* Writes lane i's codes into those of a chunk of n. */
static void put_codes(struct part part, const uint32_t quad[8], int64_t i, int64_t n, uint8_t *codes)
{
    uint8_t *at = put_field(part.low, quad, 4 * (size_t)n, codes + 4 * i);
    put_field(part.high, quad, 4 * (size_t)n, at);
}

static void put_scales(struct layout l, const struct block *block, int64_t i, struct chunk_place to)
{
    if (!l.k) {
        memcpy(to.d + layout_d_bytes(l) * (size_t)i, &block->d, layout_d_bytes(l));
        if (l.minima)
            memcpy(to.m + 2 * i, &block->m, 2);
        return;
    }
    if (l.halves) {
        to.d[i] = (uint8_t)(l.minima ? block->sc[0] | block->mn[0] << 4 : block->sc[0]);
        to.m[i] = (uint8_t)(l.minima ? block->sc[1] | block->mn[1] << 4 : block->sc[1]);
    } else {
        to.d[i] = block->sc[0];
        if (l.minima)
            to.m[i] = block->mn[0];
    }
    memcpy(to.super_d + 2 * (i / SUPER_BLOCKS), &block->d, 2);
    if (l.minima)
        memcpy(to.super_m + 2 * (i / SUPER_BLOCKS), &block->m, 2);
}

static void store_row(struct neuron_rows *m, int64_t row, const uint8_t *src)
{
    const struct layout l = layout_of(m->type);
    const int64_t nb = m->cols / ACT_BLOCK;
    uint8_t *top = m->top + (size_t)row * m->top_bytes;
    for (int64_t b = 0; b < nb; b++) {
        const struct chunk c = chunk_of(nb, b / LANE_BLOCKS);
        const struct chunk_place to = top_place(l, m->planes, top, c);
        struct block block;
        block_decode(m->type, src, b, &block);
        put_scales(l, &block, b % LANE_BLOCKS, to);
        put_codes(top_part(l, m->planes), block.quad, b % LANE_BLOCKS, c.n, to.codes);
        if (m->planes) {
            uint8_t *rest = m->rest + (size_t)row * m->rest_bytes;
            put_codes(rest_part(l), block.quad, b % LANE_BLOCKS, c.n, rest + (rest_codes(l, rest, c) - rest));
        }
    }
}

void neuron_rows_fill(struct neuron_rows *m, int64_t row_begin, int64_t row_end, const uint8_t *src, size_t src_stride,
                      const int32_t *ids)
{
    for (int64_t i = row_begin; i < row_end; i++) {
        const uint8_t *from = src + (size_t)(ids ? ids[i] : i) * src_stride;
        if (dtype_is_quantised(m->type))
            store_row(m, i, from);
        else
            memcpy(m->top + (size_t)i * m->top_bytes, from, dtype_row_bytes(m->type, m->cols));
    }
}

void lane_acts_shape(struct lane_acts *x, int64_t cols)
{
    *x = (struct lane_acts){.cols = cols, .chunks = (cols + LANE_COLS - 1) / LANE_COLS};
}

static void spread_token(const struct acts *a, int64_t t, struct lane_acts *out)
{
    const int64_t nb = a->cols / ACT_BLOCK;
    int8_t *codes = out->codes + t * lane_acts_codes(out);
    const int64_t first = t * lane_acts_blocks(out);
    for (int64_t b = 0; b < lane_acts_blocks(out); b++) {
        const struct act_block none = {0, 0, 0, 0}, *block = b < nb ? &a->blocks[t * nb + b] : &none;
        int8_t *to = codes + b / LANE_BLOCKS * LANE_COLS + 4 * (b % LANE_BLOCKS);
        for (int q = 0; q < 8; q++) {
            uint32_t quad = 0;
            if (b < nb)
                memcpy(&quad, a->codes + t * a->cols + b * ACT_BLOCK + 4 * q, sizeof quad);
            memcpy(to + 4 * LANE_BLOCKS * q, &quad, sizeof quad);
        }
        out->scale[first + b] = block->scale;
        out->scaled_sum[first + b] = block->scaled_sum;
        out->minus_sum[first + b] = block->minus_sum;
        out->minus_sum_low[first + b] = block->minus_sum_low;
    }
}

void spread_acts(const struct acts *a, int64_t token_begin, int64_t token_end, struct lane_acts *out)
{
    if (token_begin == 0)
        out->f32 = a->f32; /* by one of the threads that share the work */
    for (int64_t t = token_begin; t < token_end && out->codes; t++)
        spread_token(a, t, out);
}
