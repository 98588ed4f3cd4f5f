/* Rounding an MLP's weights to blocks of 32, Q4_0 or Q8_0. */
#ifndef HEARTH_SPARSITY_FIT_QUANTISE_H
#define HEARTH_SPARSITY_FIT_QUANTISE_H

#include <stdint.h>
#include "base/dtype.h"
#include "base/threads.h"

/* out: w [rows, cols] as `type` (DT_Q4_0, DT_Q8_0). What a column's rounding leaves over is made up for by the columns
 * after it, as their inputs are correlated (Frantar et al., GPTQ, 2022): `upper` [cols, cols] is the upper Cholesky
 * factor of the inverse of the inputs' second moments (linear.h); NULL: plain rounding. w is overwritten by what the
 * blocks hold. */
void quantise_rows(struct pool *pool, enum dtype type, float *w, int64_t rows, int64_t cols, const float *upper,
                   uint8_t *out);
/* Rounds w, which has changed a little, again, with the scales that the blocks have where they suffice: stored [rows,
 * cols] = what the blocks then hold. */
void quantise_again(struct pool *pool, enum dtype type, const float *w, int64_t rows, int64_t cols, uint8_t *blocks,
                    float *stored);

#endif
