/* Which neurons of a SiLU layer may be skipped: those of small score. */
#ifndef HEARTH_SPARSITY_FIT_THRESHOLD_H
#define HEARTH_SPARSITY_FIT_THRESHOLD_H

#include "sparsity/fit/fit.h"
#include "sparsity/fit/products.h"

/* weight [d_ff] = the norm of each neuron's column of the down projection: what an activation of one adds to the
 * output. ST_NOMEM (logged). */
status fit_weights(const struct layer_weights *w, int64_t d_model, int64_t d_ff, float *weight);

/* The curve of a layer from activations and their estimates, [n, d_ff] each. The columns of the down projection count
 * as orthogonal, which is right to a percent. Tokens whose output is far larger than the median's do not count: some
 * models keep a bias in the first token so, and the others would vanish beside it. ST_NOMEM (logged). */
status fit_curve(const float *activation, const float *estimate, const float *weight, int64_t n, int64_t d_ff,
                 struct skip_curve *out);

#endif
