/* Attention over pages of f16, in the words of *_vec.h. Scores: a lane is a position. Mix: a lane is a dimension. So
 * both sums run in the reference's order. Queries that share a KV head share its loads. */
#ifndef HEARTH_KERNELS_X86_VEC_ATTENTION_H
#define HEARTH_KERNELS_X86_VEC_ATTENTION_H

#include "kernels/layout.h"
#include "kernels/x86/vec_ops.h"

_Static_assert(KV_PAGE % KV_TILE == 0 && ATTN_SEGMENT % KV_PAGE == 0, "tiles end with pages, and these with segments");

enum { LINE = 64 / sizeof(uint16_t) }; /* values of a cache line */

INLINE void score_tile(int n, const float *q, int64_t q_stride, const uint16_t *k, int64_t head_dim, float scale,
                       float *s, int64_t s_stride)
{
    vf acc[TILE_TOKENS];
    for (int i = 0; i < n; i++)
        acc[i] = vf_zero();
    for (int64_t d = 0; d < head_dim; d++) {
        vf kd = vf_of_f16(k + d * KV_TILE);
        for (int i = 0; i < n; i++)
            acc[i] = vf_fma(vf_set(q[i * q_stride + d]), kd, acc[i]);
    }
    for (int i = 0; i < n; i++)
        vf_store(s + i * s_stride, vf_mul(acc[i], vf_set(scale)));
}

/* Pages lie anywhere: where one ends the hardware does not know the next. So while one is read, the same place of the
 * next one is asked for; NULL: there is none. */
INLINE const uint16_t *next_page(const uint16_t *const *pages, int64_t p, int64_t end)
{
    const int64_t next = p / KV_PAGE + 1;
    return next * KV_PAGE < end ? pages[next] : NULL;
}

static void attn_scores(const float *q, int64_t q_stride, int64_t n_q, const uint16_t *const *keys, int64_t head_dim,
                        int64_t pos_begin, int64_t pos_end, float scale, float *s, int64_t s_stride)
{
    for (int64_t p = pos_begin; p < pos_end; p += KV_TILE) {
        const uint16_t *kp = keys[p / KV_PAGE] + p % KV_PAGE * head_dim, *next = next_page(keys, p, pos_end);
        for (int64_t at = 0; next && at < head_dim * KV_TILE; at += LINE)
            __builtin_prefetch(next + p % KV_PAGE * head_dim + at, 0, 2);
        float *sp = s + p - pos_begin;
        int64_t i = 0;
        for (; i + TILE_TOKENS <= n_q; i += TILE_TOKENS)
            score_tile(TILE_TOKENS, q + i * q_stride, q_stride, kp, head_dim, scale, sp + i * s_stride, s_stride);
        for (; TILE_TOKENS > 3 && i + 3 <= n_q; i += 3)
            score_tile(TILE_TOKENS > 3 ? 3 : 1, q + i * q_stride, q_stride, kp, head_dim, scale, sp + i * s_stride,
                       s_stride);
        for (; i < n_q; i++)
            score_tile(1, q + i * q_stride, q_stride, kp, head_dim, scale, sp + i * s_stride, s_stride);
    }
}

/* In place m of x's values, less than a vector, become exponentials. Returns them in their lanes. */
INLINE vf exp_part(float *x, int64_t m, int64_t lane, vf max)
{
    float part[SUM_LANES] = {0}; /* an absent lane adds +0 */
    vf_store_part(x, vf_exp(vf_sub(vf_load_part(x, m), max)), m);
    memcpy(part + lane, x, (size_t)m * sizeof *x);
    return vf_load(part);
}

static float attn_weights(float *x, int64_t n, int64_t first, float sink)
{
    const float most = largest(x, n), top = sink > most ? sink : most;
    const vf max = vf_set(top);
    vf total = vf_zero();
    for (int64_t p = first; p < first + n;) {
        vf acc = vf_zero();
        for (const int64_t stop = unit_end(p, ATTN_SEGMENT, first + n); p < stop;) {
            const int64_t lane = p % SUM_LANES, m = stop - p < SUM_LANES - lane ? stop - p : SUM_LANES - lane;
            float *at = x + p - first;
            if (m == SUM_LANES) {
                vf e = vf_exp(vf_sub(vf_load(at), max));
                vf_store(at, e);
                acc = vf_add(acc, e);
            } else {
                acc = vf_add(acc, exp_part(at, m, lane, max));
            }
            p += m;
        }
        total = vf_add(total, acc);
    }
    return 1.0f / (vf_add_lanes(total) + exp_f32(sink - top));
}

/* Sums of n queries over the segments before, and over the one under way; n_vec vectors of dimensions. */
struct mixing {
    vf total[4], acc[4];
};

/* Positions [begin, end), the same for n queries; dimensions from d on. */
INLINE void mix_tile(int n, int n_vec, const float *w, int64_t w_stride, int64_t begin, int64_t end,
                     const uint16_t *const *values, int64_t head_dim, int64_t d, struct mixing *m)
{
    for (int64_t p = begin; p < end;) {
        const uint16_t *v = values[p / KV_PAGE] + p % KV_PAGE * head_dim + d, *next = next_page(values, p, end);
        const int64_t to_next = next ? next - values[p / KV_PAGE] : 0; /* what is read already costs nothing */
        for (const int64_t stop = unit_end(p, KV_PAGE, end); p < stop; p++, v += head_dim) {
            for (int at = 0; at < n_vec * SUM_LANES; at += LINE)
                __builtin_prefetch(v + to_next + at, 0, 2);
            for (int j = 0; j < n_vec; j++) {
                vf vp = vf_of_f16(v + j * SUM_LANES);
                for (int i = 0; i < n; i++)
                    m[i].acc[j] = vf_fma(vf_set(w[i * w_stride + p]), vp, m[i].acc[j]);
            }
        }
        for (int i = 0; i < n && p % ATTN_SEGMENT == 0; i++) {
            for (int j = 0; j < n_vec; j++) {
                m[i].total[j] = vf_add(m[i].total[j], m[i].acc[j]);
                m[i].acc[j] = vf_zero();
            }
        }
    }
}

/* Queries i < n over their own ranges: what they share in one pass when they begin alike, the rest one by one. */
INLINE void mix_queries(int n, int n_vec, const float *w, int64_t w_stride, const int64_t *begin, const int64_t *end,
                        const float *inverse, const uint16_t *const *values, int64_t head_dim, int64_t d, float *out,
                        int64_t out_stride)
{
    struct mixing m[TILE_TOKENS];
    int64_t shared = end[0];
    for (int i = 0; i < n; i++) {
        shared = end[i] < shared ? end[i] : shared;
        for (int j = 0; j < n_vec; j++)
            m[i].total[j] = m[i].acc[j] = vf_zero();
    }
    for (int i = 0; i < n; i++)
        if (begin[i] != begin[0] || n == 1)
            shared = begin[0]; /* nothing is shared */
    if (shared > begin[0])
        mix_tile(n, n_vec, w, w_stride, begin[0], shared, values, head_dim, d, m);
    for (int i = 0; i < n; i++) {
        mix_tile(1, n_vec, w + i * w_stride, w_stride, shared > begin[0] ? shared : begin[i], end[i], values, head_dim,
                 d, m + i);
        for (int j = 0; j < n_vec; j++) {
            vf sum = end[i] % ATTN_SEGMENT ? vf_add(m[i].total[j], m[i].acc[j]) : m[i].total[j];
            vf_store(out + i * out_stride + d + j * SUM_LANES, vf_mul(vf_set(inverse[i]), sum));
        }
    }
}

static void mix_rest(const float *w, int64_t begin, int64_t end, float inverse, const uint16_t *const *values,
                     int64_t head_dim, int64_t d, float *out)
{
    for (; d < head_dim; d++) {
        float total = 0;
        for (int64_t p = begin; p < end;) {
            float acc = 0;
            for (const int64_t stop = unit_end(p, ATTN_SEGMENT, end); p < stop; p++)
                acc = __builtin_fmaf(w[p], f32_of_f16(values[p / KV_PAGE][p % KV_PAGE * head_dim + d]), acc);
            total += acc;
        }
        out[d] = inverse * total;
    }
}

/* n queries, n a constant: four vectors of dimensions at a time, then one, then what is left. */
INLINE void mix_together(int n, const float *w, int64_t w_stride, const int64_t *begin, const int64_t *end,
                         const float *inverse, const uint16_t *const *values, int64_t head_dim, float *out,
                         int64_t out_stride)
{
    int64_t d = 0;
    for (; d + 4 * SUM_LANES <= head_dim; d += 4 * SUM_LANES)
        mix_queries(n, 4, w, w_stride, begin, end, inverse, values, head_dim, d, out, out_stride);
    for (; d + SUM_LANES <= head_dim; d += SUM_LANES)
        for (int64_t i = 0; i < n; i++)
            mix_queries(1, 1, w + i * w_stride, w_stride, begin + i, end + i, inverse + i, values, head_dim, d,
                        out + i * out_stride, out_stride);
    for (int64_t i = 0; i < n; i++)
        mix_rest(w + i * w_stride, begin[i], end[i], inverse[i], values, head_dim, d, out + i * out_stride);
}

static void attn_mix(const float *w, int64_t w_stride, int64_t w_origin, int64_t n_q, const int64_t *begin,
                     const int64_t *end, const float *inverse, const uint16_t *const *values, int64_t head_dim,
                     float *out, int64_t out_stride)
{
    enum { SHARE = TILE_TOKENS > 4 ? 4 : 1 }; /* 4 queries x 4 vectors of accumulators, where registers allow */
    w -= w_origin;
    for (int64_t i = 0; i < n_q;) {
        const int64_t n = n_q - i < SHARE ? n_q - i : SHARE;
        const float *wi = w + i * w_stride;
        float *o = out + i * out_stride;
        switch (n) {
        case 4: mix_together(4, wi, w_stride, begin + i, end + i, inverse + i, values, head_dim, o, out_stride); break;
        case 3: mix_together(3, wi, w_stride, begin + i, end + i, inverse + i, values, head_dim, o, out_stride); break;
        case 2: mix_together(2, wi, w_stride, begin + i, end + i, inverse + i, values, head_dim, o, out_stride); break;
        default: mix_together(1, wi, w_stride, begin + i, end + i, inverse + i, values, head_dim, o, out_stride); break;
        }
        i += n;
    }
}

#endif
