/* Operations of the scalar table that have files of their own. kernels.h says what each computes. */
#ifndef HEARTH_KERNELS_SCALAR_PARTS_H
#define HEARTH_KERNELS_SCALAR_PARTS_H

#include "kernels/kernels.h"

/* scalar.c: a block that holds what is no number, for `quantize` of every table. */
void quantize_broken(const float *x /* [ACT_BLOCK] */, int8_t *codes, struct act_block *block);

/* scalar_rows.c */
void scalar_dot_rows(const struct neuron_rows *m, const struct lane_acts *x, const int32_t *row, const int32_t *token,
                     int64_t n, float *y);
void scalar_estimate_rows(const struct neuron_rows *m, int64_t row_begin, int64_t row_end, const struct lane_acts *x,
                          int64_t n_tokens, float *y, int64_t y_stride);

/* scalar_columns.c */
void scalar_mix_columns(const struct neuron_columns *m, int64_t row_begin, int64_t row_end, const struct acts *h,
                        int64_t n_tokens, double *y, int64_t y_stride);

#endif
