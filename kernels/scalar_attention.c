/* Attention of the scalar table. */
#include <math.h>

#include "base/exactmath.h"
#include "kernels/layout.h"
#include "kernels/scalar_parts.h"

void scalar_attn_scores(const float *q, int64_t q_stride, int64_t n_q, const uint16_t *const *keys, int64_t head_dim,
                        int64_t pos_begin, int64_t pos_end, float scale, float *s, int64_t s_stride)
{
    for (int64_t i = 0; i < n_q; i++) {
        for (int64_t p = pos_begin; p < pos_end; p++) {
            const uint16_t *column = keys[p / KV_PAGE] + p % KV_PAGE / KV_TILE * head_dim * KV_TILE + p % KV_TILE;
            float acc = 0;
            for (int64_t d = 0; d < head_dim; d++)
                acc = fmaf(q[i * q_stride + d], f32_of_f16(column[d * KV_TILE]), acc);
            s[i * s_stride + p - pos_begin] = acc * scale;
        }
    }
}

/* In place e_i = exp(x_i - the largest). Returns exp(sink - the largest), of which the sink is one. */
static float exp_all(float *x, int64_t n, float sink)
{
    float max = x[0];
    for (int64_t i = 1; i < n; i++)
        max = x[i] > max ? x[i] : max;
    max = sink > max ? sink : max;
    for (int64_t i = 0; i < n; i++)
        x[i] = exp_f32(x[i] - max);
    return exp_f32(sink - max);
}

void scalar_softmax(float *x, int64_t n)
{
    float lane[SUM_LANES] = {0};
    exp_all(x, n, -INFINITY);
    for (int64_t i = 0; i < n; i++)
        lane[i % SUM_LANES] += x[i];
    float inverse = 1.0f / add_lanes(lane, SUM_LANES);
    for (int64_t i = 0; i < n; i++)
        x[i] *= inverse;
}

float scalar_attn_weights(float *x, int64_t n, int64_t first, float sink)
{
    float total[SUM_LANES] = {0};
    const float rest = exp_all(x, n, sink);
    for (int64_t p = first; p < first + n;) {
        float lane[SUM_LANES] = {0};
        for (const int64_t stop = unit_end(p, ATTN_SEGMENT, first + n); p < stop; p++)
            lane[p % SUM_LANES] += x[p - first];
        for (int i = 0; i < SUM_LANES; i++)
            total[i] += lane[i];
    }
    return 1.0f / (add_lanes(total, SUM_LANES) + rest);
}

/* w[p] times value d of position p. */
static float mix(const float *w, int64_t begin, int64_t end, const uint16_t *const *values, int64_t head_dim, int64_t d)
{
    float total = 0;
    for (int64_t p = begin; p < end;) {
        float acc = 0;
        for (const int64_t stop = unit_end(p, ATTN_SEGMENT, end); p < stop; p++)
            acc = fmaf(w[p], f32_of_f16(values[p / KV_PAGE][p % KV_PAGE * head_dim + d]), acc);
        total += acc;
    }
    return total;
}

void scalar_attn_mix(const float *w, int64_t w_stride, int64_t w_origin, int64_t n_q, const int64_t *begin,
                     const int64_t *end, const float *inverse, const uint16_t *const *values, int64_t head_dim,
                     float *out, int64_t out_stride)
{
    for (int64_t i = 0; i < n_q; i++)
        for (int64_t d = 0; d < head_dim; d++)
            out[i * out_stride + d] =
                inverse[i] * mix(w + i * w_stride - w_origin, begin[i], end[i], values, head_dim, d);
}
