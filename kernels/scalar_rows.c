/* The reference for single neurons' rows: the columns of a row one after the other. */
#include <math.h>

#include "kernels/row_layout.h"
#include "kernels/scalar_parts.h"

/* The bits of a code that lie in a part: column c of block b of nb. */
static int code_bits(struct part part, const uint8_t *codes, int64_t b, int64_t nb, int c)
{
    const int64_t k = b / LANE_BLOCKS, word_bytes = 4 * chunk_blocks(nb, k);
    const uint8_t *at = codes + (size_t)k * LANE_BLOCKS * part_block_bytes(part) + 4 * (b % LANE_BLOCKS) + c % 4;
    int code = 0, q = c / 4;
    for (int f = 0; f < 2; f++) {
        const struct field field = part.field[f];
        if (field.bits) {
            int byte = at[q % field.bits * word_bytes];
            code |= (byte >> (q / field.bits * field.bits) & ((1 << field.bits) - 1)) << field.shift;
        }
        at += field.bits * word_bytes;
    }
    return code;
}

/* D and M of half h of block b. */
static void row_scale_at(struct layout l, struct row_scales s, int64_t b, int h, float *d, float *m)
{
    const uint8_t *byte = h ? s.m : s.d;
    *m = 0;
    if (!l.k) {
        *d = f16_at(s.d, (int)b);
        if (l.minima)
            *m = f16_at(s.m, (int)b);
        return;
    }
    const float super = f16_at(s.super_d, (int)b / SUPER_BLOCKS);
    *d = super * (!l.minima ? (float)(int8_t)byte[b] : (float)(l.halves ? byte[b] & 15 : byte[b]));
    if (l.minima)
        *m = -(f16_at(s.super_m, (int)b / SUPER_BLOCKS) * (float)(l.halves ? byte[b] >> 4 : s.m[b]));
}

/* A row, whole or its top part alone, and what it is multiplied with. */
struct factors {
    struct layout l;
    bool planes, estimate;
    int64_t nb;
    uint8_t *top;
    const uint8_t *rest;
    const int8_t *x;     /* [chunks * 512] */
    const float *scale;  /* [chunks * 16] */
};

/* The code (minus the offset) that a weight has, or twice the middle of those that it may have. */
static int weight_code(const struct factors *f, int64_t b, int c)
{
    const int code = code_bits(top_part(f->l, f->planes), f->top, b, f->nb, c);
    if (f->estimate)
        return 2 * code + (1 << rest_bits(f->l)) - 1 - 2 * f->l.offset;
    if (f->planes)
        return (code | code_bits(rest_part(f->l), f->rest, b, f->nb, c)) - f->l.offset;
    return code - f->l.offset;
}

static float add_block(const struct factors *f, int64_t b, float acc)
{
    const struct row_scales scales = row_scales_of(f->l, top_part(f->l, f->planes), f->top, f->nb);
    const int n_parts = f->l.halves ? 2 : 1, width = ACT_BLOCK / n_parts;
    const float scale = f->scale[b];
    for (int h = 0; h < n_parts; h++) {
        int isum = 0, sum = 0;
        for (int c = h * width; c < (h + 1) * width; c++) {
            int x = f->x[b / LANE_BLOCKS * LANE_COLS + c / 4 * 4 * LANE_BLOCKS + 4 * (b % LANE_BLOCKS) + c % 4];
            isum += weight_code(f, b, c) * x;
            sum += x;
        }
        float d, m;
        row_scale_at(f->l, scales, b, h, &d, &m);
        acc = fmaf((float)isum, d * (f->estimate ? 0.5f * scale : scale), acc);
        if (f->l.minima)
            acc = fmaf(m, scale * (float)sum, acc);
    }
    return acc;
}

static struct factors factors_of(const struct neuron_rows *m, const struct lane_acts *x, int64_t row, int64_t t)
{
    return (struct factors){
        .l = layout_of(m->type),
        .planes = m->planes,
        .nb = m->cols / ACT_BLOCK,
        .top = m->top + (size_t)row * m->top_bytes,
        .rest = m->planes ? m->rest + (size_t)row * m->rest_bytes : NULL,
        .x = x->codes + t * lane_acts_codes(x),
        .scale = x->scale + t * lane_acts_blocks(x),
    };
}

static float dot_float(const struct neuron_rows *m, int64_t row, const float *x)
{
    const uint8_t *w = m->top + (size_t)row * m->top_bytes;
    float acc = 0;
    for (int64_t c = 0; c < m->cols; c++) {
        float v;
        dequantize_row(m->type, w + (size_t)c * (size_t)dtype_block_bytes(m->type), 1, &v);
        acc = fmaf(v, x[c], acc);
    }
    return acc;
}

void scalar_dot_rows(const struct neuron_rows *m, const struct lane_acts *x, const int32_t *row, const int32_t *token,
                     int64_t n, float *y)
{
    for (int64_t i = 0; i < n; i++) {
        if (!dtype_is_quantised(m->type)) {
            y[i] = dot_float(m, row[i], x->f32 + token[i] * m->cols);
            continue;
        }
        const struct factors f = factors_of(m, x, row[i], token[i]);
        float acc = 0;
        for (int64_t b = 0; b < f.nb; b++)
            acc = add_block(&f, b, acc);
        y[i] = acc;
    }
}

static float estimate(const struct factors *f)
{
    float lane[SUM_LANES] = {0};
    for (int64_t b = 0; b < f->nb; b++)
        lane[b % SUM_LANES] = add_block(f, b, lane[b % SUM_LANES]);
    for (int64_t b = f->nb; b % SUM_LANES; b++)
        lane[b % SUM_LANES] += 0.0f; /* an absent block: -0 becomes +0 */
    for (int n = SUM_LANES / 2; n > 0; n /= 2)
        for (int i = 0; i < n; i++)
            lane[i] += lane[i + n];
    return lane[0];
}

void scalar_estimate_rows(const struct neuron_rows *m, int64_t row_begin, int64_t row_end, const struct lane_acts *x,
                          int64_t n_tokens, float *y, int64_t y_stride)
{
    for (int64_t r = row_begin; r < row_end; r++) {
        for (int64_t t = 0; t < n_tokens; t++) {
            struct factors f = factors_of(m, x, r, t);
            f.estimate = true;
            y[t * y_stride + r - row_begin] = estimate(&f);
        }
    }
}
