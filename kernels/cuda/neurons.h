/* Single neurons: which of a layer's fire, their rows, their columns. Lists of neurons stay on the GPU, in any order:
 * rows do not depend on each other, and sums are exact. */
#ifndef HEARTH_KERNELS_CUDA_NEURONS_H
#define HEARTH_KERNELS_CUDA_NEURONS_H

#include "base/activation.h"
#include "kernels/columns.h"
#include "kernels/cuda/gpu.h"
#include "kernels/rows.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Pairs of a neuron (its row among the held ones) and a token. */
struct gpu_pairs {
    uint32_t *n;         /* how many */
    int32_t *row, *token;/* [rows * n_tokens], of which *n are set */
    float *gate;         /* beside its pair, once it is known */
    int32_t *share;      /* of layers with experts: which share they are of (shares.h) */
};

/* Counters of struct device_counts, on the GPU; added to. */
struct gpu_counts {
    unsigned long long flagged, live;
    unsigned long long rows_read;    /* of up, a row for each pair: one that several tokens read counts several times.
                                      * Of the gate's rows, gpu_gate_pairs reads as many as were flagged. */
    /* Of a layer with experts, whose sets only the GPU knows (shares.h): neurons looked at, bytes of weights read
     * whatever fires, sets that were computed. */
    unsigned long long neurons, bytes, uses;
};

/* y[t * y_stride + r] = the estimate of row r, all of m's rows, which are in planes (kernels.h, estimate_rows). */
void gpu_estimate_rows(const struct gpu *g, const struct neuron_rows *m, const struct acts *x, int64_t n, float *y,
                       int64_t y_stride);

/* y[t * stride + r] = f(gate, up) magnitude of estimates, as device/cpu/fire.c decides by product: in place in gate,
 * with gate * gate_slope + gate_offset and up * up_slope + up_offset (each product and sum rounded by itself),
 * activate, then fabsf. */
void gpu_estimate_products(const struct gpu *g, enum activation a, float *gate, const float *up, int64_t stride,
                           int64_t rows, int64_t n, const float *gate_slope, const float *gate_offset,
                           const float *up_slope, const float *up_offset);

/* pairs = those whose value[t * stride + r] is above the bound (bound_of[r] where it is not NULL), or no number; of up
 * to 32 tokens a row's pairs follow each other. keep: the value is the pair's gate. counts->flagged grows (NULL:
 * nothing does). n is not 0. */
void gpu_pick(const struct gpu *g, const float *value, int64_t stride, int64_t rows, int64_t n, float bound,
              const float *bound_of, bool keep, const struct gpu_pairs *to, struct gpu_counts *counts,
              const struct gpu_clearing *clearing);

/* pair's gate = its row of m times its token of x (kernels.h, dot_rows), plus bias[row] unless it is NULL. most: pairs
 * that there can be (rows * n). */
void gpu_gate_pairs(const struct gpu *g, const struct neuron_rows *m, const struct acts *x, const float *bias,
                    int64_t most, const struct gpu_pairs *pairs);

/* For the pairs whose gate is positive or no number (all: for every pair, of decisions by product): h[token * h_stride
 * + slot[row]] = activate(gate, up row times token, plus up_bias[row] unless that is NULL); up NULL: activate(NULL,
 * gate). counts->live grows by the pairs that are computed, and rows_read where there is up (NULL: nothing does). h's
 * other slots are not touched. */
void gpu_activate_pairs(const struct gpu *g, enum activation a, const struct neuron_rows *up, const float *up_bias,
                        const struct acts *x, bool all, int64_t most, const struct gpu_pairs *pairs,
                        const int32_t *slot, float *h, int64_t h_stride, struct gpu_counts *counts);

/* Dense: h[t][slot[r]] = activate(gate[t][r], up[t][r]) for all rows (slot NULL: r itself); gate NULL: up alone. Then
 * all of h is quantised where asked: in the same launch, if it has no other columns than these. n is not 0. */
void gpu_activate(const struct gpu *g, enum activation a, const float *gate, const float *up, int64_t stride,
                  int64_t rows, int64_t n, const int32_t *slot, const struct acts *h, bool quantise,
                  const struct gpu_clearing *clearing);

/* to += the columns of live neurons times their activations (kernels.h, mix_columns). Of h only f32 is read, and
 * quantised on the way where columns_read_codes; slots of neurons that are not held are zero. Broken as
 * gpu_matmul_partial. m's arrays lie on the GPU; ranges [n_ranges]: the segments that its blocks form, in ascending
 * order (made once, on the host, with next_range of column_layout.h). */
struct gpu_range {
    int32_t begin, end, super;
};
void gpu_mix_columns(const struct gpu *g, const struct neuron_columns *m, const struct gpu_range *ranges, int n_ranges,
                     const struct acts *h, int64_t n, const struct gpu_sums *to);

/* h[first .. ] of guests: h[t * h_stride + slot[index[i]]] = value[i], first[t] <= i < first[t + 1]; n_pairs:
 * first[n]. */
void gpu_place_live(const struct gpu *g, const uint32_t *first, const uint32_t *index, const float *value, int64_t n,
                    int64_t n_pairs, const int32_t *slot, float *h, int64_t h_stride);

#ifdef __cplusplus
}
#endif

#endif
