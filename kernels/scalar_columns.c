/* The reference of mix_columns, a tile of outputs at a time. */
#include <math.h>

#include "kernels/column_layout.h"
#include "kernels/scalar_parts.h"

/* A part's codes, `from` bits up. */
static void add_part(int bits, int from, const uint8_t *part, uint8_t code[COLUMN_TILE])
{
    for (int r = 0; r < COLUMN_TILE; r++) {
        int at, shift;
        part_place(bits, r / 4, &at, &shift);
        code[r] |= (uint8_t)((part[4 * at + r % 4] >> shift & ((1 << bits) - 1)) << from);
    }
}

/* isum += values * x of one neuron. */
static void add_column(const struct neuron_columns *m, int64_t tile, int32_t column, int x, int isum[COLUMN_TILE])
{
    const struct layout l = layout_of(m->type);
    const uint8_t *codes = column_codes(m, column);
    uint8_t code[COLUMN_TILE] = {0};
    add_part(l.low_bits, 0, codes + tile * part_bytes(l.low_bits), code);
    if (l.high_bits)
        add_part(l.high_bits, l.low_bits, codes + high_at(l, column_tiles(m), tile), code);
    for (int r = 0; r < COLUMN_TILE; r++)
        isum[r] += value_of(l, code[r]) * x;
}

/* The integer sums of half h of a block of one token, or of all of it: codes x of its slots. Returns the sum of x. */
static int sum_block(const struct neuron_columns *m, int64_t tile, int64_t b, int h, const int8_t *x,
                     int isum[COLUMN_TILE])
{
    const int width = layout_of(m->type).halves ? ACT_BLOCK / 2 : ACT_BLOCK;
    int sum = 0;
    memset(isum, 0, COLUMN_TILE * sizeof *isum);
    for (int c = h * width; c < (h + 1) * width; c++) {
        if (x[c] && m->column[b * ACT_BLOCK + c] >= 0)
            add_column(m, tile, m->column[b * ACT_BLOCK + c], x[c], isum);
        sum += x[c];
    }
    return sum;
}

static void add_block(const struct neuron_columns *m, const struct column_range *range, int64_t tile, int64_t b,
                      const int8_t *x, const struct act_block *s, float acc[COLUMN_TILE])
{
    const struct layout l = layout_of(m->type);
    int isum[COLUMN_TILE], sum = sum_block(m, tile, b, 0, x, isum);
    for (int r = 0; r < COLUMN_TILE; r++) {
        const uint8_t *scales = column_scales(m, range, b, tile) + (size_t)r / ROW_GROUP * layout_scale_bytes(l);
        acc[r] = fmaf((float)isum[r], d_at(l, scales, r % ROW_GROUP) * s->scale, acc[r]);
        if (l.minima)
            acc[r] = fmaf(f16_at(scales, ROW_GROUP + r % ROW_GROUP), s->scale * (float)sum, acc[r]);
    }
}

/* A block of a K type: a and minima as in kernels/layout.h. */
static void add_k_block(const struct neuron_columns *m, const struct column_range *range, int64_t tile, int64_t b,
                        const int8_t *x, const struct act_block *s, float a[COLUMN_TILE], float minima[COLUMN_TILE])
{
    const struct layout l = layout_of(m->type);
    int t[COLUMN_TILE] = {0};
    for (int h = 0; h < (l.halves ? 2 : 1); h++) {
        int isum[COLUMN_TILE], sum = sum_block(m, tile, b, h, x, isum);
        for (int r = 0; r < COLUMN_TILE; r++) {
            int scale, min;
            k_scale_at(l, column_scales(m, range, b, tile) + (size_t)r / ROW_GROUP * layout_scale_bytes(l), h,
                       r % ROW_GROUP, &scale, &min);
            t[r] += scale * isum[r];
            minima[r] = fmaf((float)min, s->scale * (float)sum, minima[r]);
        }
    }
    for (int r = 0; r < COLUMN_TILE; r++)
        a[r] = fmaf((float)t[r], s->scale, a[r]);
}

/* a = the segment's sum; a and minima hold those of its blocks. */
static void end_k_segment(const struct neuron_columns *m, const struct column_range *range, int64_t tile,
                          float a[COLUMN_TILE], const float minima[COLUMN_TILE])
{
    const struct layout l = layout_of(m->type);
    for (int r = 0; r < COLUMN_TILE; r++) {
        const uint8_t *supers = column_supers(m, range, tile) + (size_t)r / ROW_GROUP * layout_super_bytes(l);
        a[r] = fmaf(super_d_at(l, supers, r % ROW_GROUP), a[r], 0.0f);
        if (l.minima)
            a[r] = fmaf(-f16_at(supers, ROW_GROUP + r % ROW_GROUP), minima[r], a[r]);
    }
}

/* The first n weights of a tile of one neuron. */
static void weights_at(const struct neuron_columns *m, int32_t column, int64_t tile, int64_t n, float *w)
{
    const uint8_t *codes = column_codes(m, column);
    if (dtype_is_quantised(m->type)) {
        for (int64_t r = 0; r < n; r += ACT_BLOCK)
            block_dequantize(m->type, codes, (tile * COLUMN_TILE + r) / ACT_BLOCK, w + r);
    } else {
        dequantize_row(m->type, codes + tile * part_bytes(float_bits(m->type)), n, w);
    }
}

static void add_weights(const struct neuron_columns *m, int64_t tile, int64_t n, int64_t b, const float *x,
                        float acc[COLUMN_TILE])
{
    float w[COLUMN_TILE];
    for (int c = 0; c < ACT_BLOCK; c++) {
        const int32_t column = m->column[b * ACT_BLOCK + c];
        if (x[c] == 0 || column < 0)
            continue;
        weights_at(m, column, tile, n, w);
        for (int64_t r = 0; r < n; r++)
            acc[r] = fmaf(w[r], x[c], acc[r]);
    }
}

/* n outputs of a tile for token t. */
static void mix_tile(const struct neuron_columns *m, int64_t tile, int64_t n, const struct acts *a, int64_t t,
                     double *y)
{
    double sum[COLUMN_TILE] = {0};
    for (struct column_range range = {.super = -1}; next_range(m, &range);) {
        const bool codes = columns_read_codes(m), k = codes && layout_of(m->type).k;
        float acc[COLUMN_TILE] = {0}, minima[COLUMN_TILE] = {0};
        for (int64_t b = range.begin; b < range.end; b++) {
            const int64_t at = t * m->n_blocks + b;
            if (k)
                add_k_block(m, &range, tile, b, a->codes + at * ACT_BLOCK, &a->blocks[at], acc, minima);
            else if (codes)
                add_block(m, &range, tile, b, a->codes + at * ACT_BLOCK, &a->blocks[at], acc);
            else
                add_weights(m, tile, n, b, a->f32 + at * ACT_BLOCK, acc);
        }
        if (k)
            end_k_segment(m, &range, tile, acc, minima);
        for (int64_t r = 0; r < n; r++)
            sum[r] += ((double)acc[r] + SEGMENT_GRID) - SEGMENT_GRID;
    }
    memcpy(y, sum, (size_t)n * sizeof *y);
}

void scalar_mix_columns(const struct neuron_columns *m, int64_t row_begin, int64_t row_end, const struct acts *h,
                        int64_t n_tokens, double *y, int64_t y_stride)
{
    for (int64_t row = row_begin; row < row_end; row += COLUMN_TILE)
        for (int64_t t = 0; t < n_tokens; t++)
            mix_tile(m, row / COLUMN_TILE, row + COLUMN_TILE < row_end ? COLUMN_TILE : row_end - row, h, t,
                     y + t * y_stride + row);
}
