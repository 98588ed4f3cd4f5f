/* The reference: plain C that spells out each operation's order. Every other table equals it bit for bit. */
#include <math.h>

#include "base/exactmath.h"
#include "kernels/layout.h"
#include "kernels/rows.h"
#include "kernels/scalar_parts.h"
#include "kernels/tables.h"

void quantize_broken(const float *x, int8_t *codes, struct act_block *block)
{
    int sum[2] = {0, 0};
    for (int c = 0; c < ACT_BLOCK; c++) {
        codes[c] = isfinite(x[c]) ? 0 : 127;
        sum[c / 16] += codes[c];
    }
    *block = (struct act_block){.scale = NAN, .scaled_sum = NAN, .minus_sum = -(sum[0] + sum[1]),
                                .minus_sum_low = -sum[0]};
}

static void quantize_block(const float *x, int8_t *codes, struct act_block *block)
{
    float amax = 0;
    bool broken = false;
    for (int c = 0; c < ACT_BLOCK; c++) {
        amax = fabsf(x[c]) > amax ? fabsf(x[c]) : amax;
        broken |= !isfinite(x[c]);
    }
    if (broken) {
        quantize_broken(x, codes, block);
        return;
    }
    float inverse = amax >= 1e-30f ? 127.0f / amax : 0.0f;
    int sum[2] = {0, 0};
    for (int c = 0; c < ACT_BLOCK; c++) {
        codes[c] = (int8_t)rintf(x[c] * inverse);
        sum[c / 16] += codes[c];
    }
    block->scale = amax / 127.0f;
    block->scaled_sum = block->scale * (float)(sum[0] + sum[1]);
    block->minus_sum = -(sum[0] + sum[1]);
    block->minus_sum_low = -sum[0];
}

static void quantize(struct acts *a, int64_t token_begin, int64_t token_end)
{
    int64_t nb = a->cols / ACT_BLOCK;
    for (int64_t i = token_begin * nb; i < token_end * nb; i++)
        quantize_block(a->f32 + i * ACT_BLOCK, a->codes + i * ACT_BLOCK, &a->blocks[i]);
}

static void sum_blocks(struct acts *a, int64_t token_begin, int64_t token_end)
{
    int64_t nb = a->cols / ACT_BLOCK;
    for (int64_t i = token_begin * nb; i < token_end * nb; i++) {
        const int8_t *codes = a->codes + i * ACT_BLOCK;
        int sum[2] = {0, 0};
        for (int c = 0; c < ACT_BLOCK; c++)
            sum[c / 16] += codes[c];
        a->blocks[i].scaled_sum = a->blocks[i].scale * (float)(sum[0] + sum[1]);
        a->blocks[i].minus_sum = -(sum[0] + sum[1]);
        a->blocks[i].minus_sum_low = -sum[0];
    }
}

/* Code of row r, column c of a block. */
static int code_at(struct layout l, const uint8_t *codes, int r, int c)
{
    int q = c / 4, at = 4 * r + c % 4, code;
    if (l.low_bits == 8)
        return codes[64 * q + at];
    if (l.low_bits == 4)
        code = codes[64 * (q % 4) + at] >> (q < 4 ? 0 : 4) & 15;
    else
        code = codes[64 * (q % 2) + at] >> (2 * (q / 2)) & 3;
    codes += 64 * l.low_bits;
    if (l.high_bits == 2)
        code |= (codes[64 * (q % 2) + at] >> (2 * (q / 2)) & 3) << 4;
    else if (l.high_bits == 1)
        code |= (codes[at] >> q & 1) << l.low_bits;
    return code;
}

/* The integer sums of one block: of half h, or of all 32 columns. */
static void block_sums(struct layout l, const struct place *p, int r, int h, const int8_t *x, int *isum, int *sum)
{
    const int width = l.halves ? ACT_BLOCK / 2 : ACT_BLOCK;
    *isum = *sum = 0;
    for (int c = h * width; c < (h + 1) * width; c++) {
        *isum += value_of(l, code_at(l, p->codes, r, c)) * x[c];
        *sum += x[c];
    }
}

static float add_block(struct layout l, const struct place *p, int r, const int8_t *x, const struct act_block *s,
                       float acc)
{
    int isum, sum;
    block_sums(l, p, r, 0, x, &isum, &sum);
    acc = fmaf((float)isum, d_at(l, p->scales, r) * s->scale, acc);
    return l.minima ? fmaf(f16_at(p->scales, ROW_GROUP + r), s->scale * (float)sum, acc) : acc;
}

/* Blocks [b, end) of a K type, which lie in one half of a super-block. */
static float add_half(struct layout l, uint8_t *group, int r, int64_t b, int64_t end, const int8_t *x,
                      const struct act_block *s, float acc)
{
    struct place p = layout_place(l, group, b);
    float a = 0, minima = 0;
    for (; b < end; b++) {
        int t = 0;
        p = layout_place(l, group, b);
        for (int h = 0; h < (l.halves ? 2 : 1); h++) {
            int isum, sum, scale, min;
            block_sums(l, &p, r, h, x + b * ACT_BLOCK, &isum, &sum);
            k_scale_at(l, p.scales, h, r, &scale, &min);
            t += scale * isum;
            if (l.minima)
                minima = fmaf((float)min, s[b].scale * (float)sum, minima);
        }
        a = fmaf((float)t, s[b].scale, a);
    }
    acc = fmaf(super_d_at(l, p.supers, r), a, acc);
    return l.minima ? fmaf(-f16_at(p.supers, ROW_GROUP + r), minima, acc) : acc;
}

/* Columns [begin, end) of row r of a group, whole blocks. */
static float dot_quantised(const struct packed *m, uint8_t *group, int r, const int8_t *x, const struct act_block *s,
                           int64_t begin, int64_t end)
{
    struct layout l = layout_of(m->type);
    float acc = 0;
    for (int64_t b = begin / ACT_BLOCK, last = end / ACT_BLOCK, stop; b < last; b = stop) {
        stop = l.k ? unit_end(b, HALF_BLOCKS, last) : b + 1;
        struct place p = layout_place(l, group, b);
        acc = l.k ? add_half(l, group, r, b, stop, x, s, acc) : add_block(l, &p, r, x + b * ACT_BLOCK, &s[b], acc);
    }
    return acc;
}

static float dot_float(const struct packed *m, const uint8_t *group, int r, const float *x, int64_t begin, int64_t end)
{
    float acc = 0;
    for (int64_t c = begin; c < end; c++) {
        float w;
        uint16_t h;
        if (m->type == DT_F32) {
            memcpy(&w, group + 4 * (c * ROW_GROUP + r), 4);
        } else {
            memcpy(&h, group + 2 * (c * ROW_GROUP + r), 2);
            w = m->type == DT_F16 ? f32_of_f16(h) : f32_of_bf16(h);
        }
        acc = fmaf(w, x[c], acc);
    }
    return acc;
}

static float dot(const struct packed *m, int64_t row, const struct acts *a, int64_t t, int64_t begin, int64_t end)
{
    uint8_t *group = m->data + (size_t)(row / ROW_GROUP) * m->group_bytes;
    int r = (int)(row % ROW_GROUP);
    if (!dtype_is_quantised(m->type)) {
        const float *x = a->f32 + t * m->cols;
        float sum = 0;
        for (int64_t c = begin; c < end; c += FLOAT_SEGMENT)
            sum += dot_float(m, group, r, x, c, c + FLOAT_SEGMENT < end ? c + FLOAT_SEGMENT : end);
        return sum;
    }
    return dot_quantised(m, group, r, a->codes + t * m->cols, a->blocks + t * (m->cols / ACT_BLOCK), begin, end);
}

static int64_t last_row(const struct packed *m, int64_t group_end)
{
    return group_end * ROW_GROUP < m->rows ? group_end * ROW_GROUP : m->rows;
}

static void matmul(const struct packed *m, int64_t group_begin, int64_t group_end, const struct acts *a,
                   int64_t n_tokens, float *y, int64_t y_stride)
{
    for (int64_t row = group_begin * ROW_GROUP; row < last_row(m, group_end); row++)
        for (int64_t t = 0; t < n_tokens; t++)
            y[t * y_stride + row] = dot(m, row, a, t, 0, m->cols);
}

static void matmul_partial(const struct packed *m, int64_t group_begin, int64_t group_end, const struct acts *a,
                           int64_t n_tokens, double *y, int64_t y_stride)
{
    for (int64_t row = group_begin * ROW_GROUP; row < last_row(m, group_end); row++) {
        for (int64_t t = 0; t < n_tokens; t++) {
            double sum = 0;
            for (int64_t c = 0; c < m->cols; c += m->segment) {
                double s = (double)dot(m, row, a, t, c, c + m->segment < m->cols ? c + m->segment : m->cols);
                sum += (s + SEGMENT_GRID) - SEGMENT_GRID;
            }
            y[t * y_stride + row] = sum;
        }
    }
}

static void rms_norm(const float *x, const float *w, int64_t n, float eps, float *out)
{
    float lane[NORM_LANES] = {0};
    for (int64_t i = 0; i < n; i++)
        lane[i % NORM_LANES] = fmaf(x[i], x[i], lane[i % NORM_LANES]);
    float s = 1.0f / sqrtf(add_lanes(lane, NORM_LANES) / (float)n + eps);
    for (int64_t i = 0; i < n; i++)
        out[i] = (x[i] * s) * w[i];
}

static void layer_norm(const float *x, const float *w, const float *b, int64_t n, float eps, float *out)
{
    float lane[NORM_LANES] = {0};
    for (int64_t i = 0; i < n; i++)
        lane[i % NORM_LANES] += x[i];
    const float mean = add_lanes(lane, NORM_LANES) / (float)n;
    for (int i = 0; i < NORM_LANES; i++)
        lane[i] = 0;
    for (int64_t i = 0; i < n; i++)
        lane[i % NORM_LANES] = fmaf(x[i] - mean, x[i] - mean, lane[i % NORM_LANES]);
    const float s = 1.0f / sqrtf(add_lanes(lane, NORM_LANES) / (float)n + eps);
    for (int64_t i = 0; i < n; i++)
        out[i] = b ? fmaf((x[i] - mean) * s, w[i], b[i]) : ((x[i] - mean) * s) * w[i];
}

static void rope(float *x, const float *cos_sin, int64_t n_heads, int64_t head_dim, int64_t half, bool neox)
{
    for (int64_t h = 0; h < n_heads; h++, x += head_dim) {
        for (int64_t i = 0; i < half; i++) {
            float *a = neox ? &x[i] : &x[2 * i], *b = neox ? &x[i + half] : &x[2 * i + 1];
            float c = cos_sin[i], s = cos_sin[half + i], a0 = *a, b0 = *b;
            *a = fmaf(a0, c, -(b0 * s));
            *b = fmaf(a0, s, b0 * c);
        }
    }
}

static float relu(float g) { return 0 > g ? 0 : g; } /* NaN stays */

static float gelu(float g)
{
    return (0.5f * g) * (1.0f + tanh_f32((GELU_SCALE * g) * fmaf(GELU_CUBE * g, g, 1.0f)));
}

static float below_limit(float x) { return SWIGLU_LIMIT < x ? SWIGLU_LIMIT : x; } /* NaN stays */

static float swish_clamped(float g)
{
    g = below_limit(g);
    return g / (1.0f + exp_f32(-(SWIGLU_SLOPE * g)));
}

/* What the gate, or up where there is none, becomes. */
static float activation(enum activation a, float g)
{
    switch (a) {
    case ACT_SILU: return g / (1.0f + exp_f32(-g));
    case ACT_GELU: return gelu(g);
    case ACT_SWIGLU_CLAMPED: return swish_clamped(g);
    case ACT_RELU2: return relu(g) * relu(g);
    default: return relu(g);
    }
}

/* What that is multiplied with. */
static float beside_gate(enum activation a, float up)
{
    if (a == ACT_SWIGLU_CLAMPED)
        return below_limit(-SWIGLU_LIMIT > up ? -SWIGLU_LIMIT : up) + 1.0f;
    return a == ACT_DRELU ? relu(up) : up;
}

static void activate(enum activation a, const float *gate, const float *up, int64_t n, float *out)
{
    for (int64_t i = 0; i < n; i++) {
        const float v = activation(a, gate ? gate[i] : up[i]);
        out[i] = gate ? v * beside_gate(a, up[i]) : v;
    }
}

static void softcap(float *x, int64_t n, float cap)
{
    const float inverse = 1.0f / cap;
    for (int64_t i = 0; i < n; i++)
        x[i] = cap * tanh_f32(x[i] * inverse);
}

static void add(float *x, const float *y, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        x[i] += y[i];
}

static void to_f16(const float *x, int64_t n, uint16_t *out)
{
    for (int64_t i = 0; i < n; i++)
        out[i] = f16_of_f32(x[i]);
}

static void from_f16(const uint16_t *x, int64_t n, float *out)
{
    for (int64_t i = 0; i < n; i++)
        out[i] = f32_of_f16(x[i]);
}

#include "kernels/sums.h"

static uint32_t read_words(const uint32_t *p, int64_t n)
{
    uint32_t sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += p[i];
    return sum;
}

const struct kernels kernels_scalar = {
    .name = "scalar",
    .quantize = quantize,
    .sum_blocks = sum_blocks,
    .matmul = matmul,
    .matmul_partial = matmul_partial,
    .sum_widths = sum_widths,
    .pack_sums = pack_sums,
    .add_packed = add_packed,
    .mix_columns = scalar_mix_columns,
    .spread = spread_acts,
    .dot_rows = scalar_dot_rows,
    .estimate_rows = scalar_estimate_rows,
    .rms_norm = rms_norm,
    .layer_norm = layer_norm,
    .rope = rope,
    .activate = activate,
    .softcap = softcap,
    .add = add,
    .to_f16 = to_f16,
    .attn_scores = scalar_attn_scores,
    .softmax = scalar_softmax,
    .attn_weights = scalar_attn_weights,
    .attn_mix = scalar_attn_mix,
    .sigmoid_gate = scalar_sigmoid_gate,
    .convolve = scalar_convolve,
    .delta_step = scalar_delta_step,
    .read_words = read_words,
};
