/* The reference for single neurons' rows: the columns of a row one after the other. */
#include <math.h>

#include "kernels/row_layout.h"
#include "kernels/scalar_parts.h"

/* Column c's bits of a field whose first word is at `at`. */
static int field_bits(struct field field, const uint8_t *at, int64_t word_bytes, int c)
{
    if (!field.bits)
        return 0;
    const int q = c / 4, byte = at[q % field.bits * word_bytes + c % 4];
    return (byte >> (q / field.bits * field.bits) & ((1 << field.bits) - 1)) << field.shift;
}

/* The bits of a code that lie in a part: lane i, column c of a chunk of n. */
static int code_bits(struct part part, const uint8_t *codes, int64_t i, int64_t n, int c)
{
    const uint8_t *at = codes + 4 * i;
    return field_bits(part.low, at, 4 * n, c) | field_bits(part.high, at + 4 * n * part.low.bits, 4 * n, c);
}

/* D and M of half h of lane i. */
static void row_scale_at(struct layout l, struct chunk_place s, int i, int h, float *d, float *m)
{
    const uint8_t *byte = h ? s.m : s.d;
    *m = 0;
    if (!l.k) {
        *d = d_at(l, s.d, i);
        if (l.minima)
            *m = f16_at(s.m, i);
        return;
    }
    const float super = f16_at(s.super_d, i / SUPER_BLOCKS);
    *d = super * (float)k_scale_of(l, byte[i]);
    if (l.minima)
        *m = -(f16_at(s.super_m, i / SUPER_BLOCKS) * (float)(l.halves ? byte[i] >> 4 : s.m[i]));
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

/* The value that a weight has, or twice the middle of those that it may have. */
static int weight_code(const struct factors *f, struct chunk k, const uint8_t *top_codes, int i, int c)
{
    const int code = code_bits(top_part(f->l, f->planes), top_codes, i, k.n, c);
    if (f->estimate)
        return 2 * code + (1 << rest_bits(f->l)) - 1 - 2 * f->l.offset;
    if (f->planes)
        return (code | code_bits(rest_part(f->l), rest_codes(f->l, f->rest, k), i, k.n, c)) - f->l.offset;
    return value_of(f->l, code);
}

/* The integer sums of half h of block b, or of all of it. */
static void block_sums(const struct factors *f, struct chunk k, const uint8_t *codes, int i, int h, int *isum, int *sum)
{
    const int width = f->l.halves ? ACT_BLOCK / 2 : ACT_BLOCK;
    *isum = *sum = 0;
    for (int c = h * width; c < (h + 1) * width; c++) {
        const int x = f->x[k.k * LANE_COLS + c / 4 * 4 * LANE_BLOCKS + 4 * i + c % 4];
        *isum += weight_code(f, k, codes, i, c) * x;
        *sum += x;
    }
}

/* acc + block b by itself. */
static float add_block(const struct factors *f, int64_t b, float acc)
{
    const struct chunk k = chunk_of(f->nb, b / LANE_BLOCKS);
    const struct chunk_place place = top_place(f->l, f->planes, f->top, k);
    const int i = (int)(b % LANE_BLOCKS);
    const float scale = f->scale[b];
    for (int h = 0; h < (f->l.halves ? 2 : 1); h++) {
        int isum, sum;
        float d, m;
        block_sums(f, k, place.codes, i, h, &isum, &sum);
        row_scale_at(f->l, place, i, h, &d, &m);
        acc = fmaf((float)isum, d * (f->estimate ? 0.5f * scale : scale), acc);
        if (f->l.minima)
            acc = fmaf(m, scale * (float)sum, acc);
    }
    return acc;
}

/* acc + blocks [b, end) of a K type, half of a super-block. */
static float add_half(const struct factors *f, int64_t b, int64_t end, float acc)
{
    const struct layout l = f->l;
    const struct chunk k = chunk_of(f->nb, b / LANE_BLOCKS);
    const struct chunk_place p = top_place(l, f->planes, f->top, k);
    const int super = (int)(b % LANE_BLOCKS) / SUPER_BLOCKS;
    float a = 0, minima = 0;
    for (; b < end; b++) {
        const int i = (int)(b % LANE_BLOCKS);
        int t = 0;
        for (int h = 0; h < (l.halves ? 2 : 1); h++) {
            const uint8_t byte = h ? p.m[i] : p.d[i];
            int isum, sum;
            block_sums(f, k, p.codes, i, h, &isum, &sum);
            t += k_scale_of(l, byte) * isum;
            if (l.minima)
                minima = fmaf((float)(l.halves ? byte >> 4 : p.m[i]), f->scale[b] * (float)sum, minima);
        }
        a = fmaf((float)t, f->scale[b], a);
    }
    acc = fmaf(super_d_at(l, p.super_d, super), a, acc);
    return l.minima ? fmaf(-f16_at(p.super_m, super), minima, acc) : acc;
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
    float sum = 0;
    for (int64_t c = 0; c < m->cols;) {
        const int64_t end = c + FLOAT_SEGMENT < m->cols ? c + FLOAT_SEGMENT : m->cols;
        float acc = 0;
        for (; c < end; c++) {
            float v;
            dequantize_row(m->type, w + (size_t)c * (size_t)dtype_block_bytes(m->type), 1, &v);
            acc = fmaf(v, x[c], acc);
        }
        sum += acc;
    }
    return sum;
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
        for (int64_t b = 0, stop; b < f.nb; b = stop) {
            stop = f.l.k ? unit_end(b, HALF_BLOCKS, f.nb) : b + 1;
            acc = f.l.k ? add_half(&f, b, stop, acc) : add_block(&f, b, acc);
        }
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
