/* Operations of the scalar table that have files of their own. kernels.h says what each computes. */
#ifndef HEARTH_KERNELS_SCALAR_PARTS_H
#define HEARTH_KERNELS_SCALAR_PARTS_H

#include "kernels/kernels.h"

/* Adds lanes pairwise, a power of two of them, in place. */
static inline float add_lanes(float *lane, int lanes)
{
    for (int n = lanes / 2; n > 0; n /= 2)
        for (int i = 0; i < n; i++)
            lane[i] = lane[i] + lane[i + n];
    return lane[0];
}

/* scalar.c: a block that holds what is no number, for `quantize` of every table. */
void quantize_broken(const float *x /* [ACT_BLOCK] */, int8_t *codes, struct act_block *block);

/* scalar_attention.c */
void scalar_attn_scores(const float *q, int64_t q_stride, int64_t n_q, const uint16_t *const *keys, int64_t head_dim,
                        int64_t pos_begin, int64_t pos_end, float scale, float *s, int64_t s_stride);
void scalar_softmax(float *x, int64_t n);
float scalar_attn_weights(float *x, int64_t n, int64_t first, float sink);
void scalar_attn_mix(const float *w, int64_t w_stride, int64_t w_origin, int64_t n_q, const int64_t *begin,
                     const int64_t *end, const float *inverse, const uint16_t *const *values, int64_t head_dim,
                     float *out, int64_t out_stride);

/* scalar_rows.c */
void scalar_dot_rows(const struct neuron_rows *m, const struct lane_acts *x, const int32_t *row, const int32_t *token,
                     int64_t n, float *y);
void scalar_estimate_rows(const struct neuron_rows *m, int64_t row_begin, int64_t row_end, const struct lane_acts *x,
                          int64_t n_tokens, float *y, int64_t y_stride);

/* scalar_columns.c */
void scalar_mix_columns(const struct neuron_columns *m, int64_t row_begin, int64_t row_end, const struct acts *h,
                        int64_t n_tokens, double *y, int64_t y_stride);

/* scalar_delta.c */
void scalar_sigmoid_gate(float *x, const float *g, int64_t n);
void scalar_convolve(const float *const *x, const float *w, int64_t w_stride, int n_taps, int64_t n, float *out);
void scalar_delta_step(float *s, int64_t size, const float *q, const float *k, const float *v, float decay, float beta,
                       float *out);

#endif
