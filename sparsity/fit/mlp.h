/* The predictor that PowerInfer uses (Song et al., 2024): a neuron is flagged where fc2 relu(fc1 x) >= threshold. */
#ifndef HEARTH_SPARSITY_FIT_MLP_H
#define HEARTH_SPARSITY_FIT_MLP_H

#include "sparsity/fit/fit.h"
#include "sparsity/fit/statistics.h"

/* What was trained; data of fc1 and fc2 NULL: no budget for any. */
struct mlp {
    struct matrix fc1, fc2; /* data malloc'ed */
    float threshold;
    struct predictor_quality quality;
};

/* Whether there can be one for such an x: its blocks of weights must be whole. */
bool mlp_possible(int64_t d_model);
/* Bytes of an MLP of r hidden values. */
uint64_t mlp_bytes(int64_t r, int64_t d_model, int64_t d_ff);

/* Trains one on the samples of a layer; bias [d_ff]: of up, or NULL. It is the smallest that meets o->recall and
 * o->accuracy, or the largest that fits, within o->mlp_bytes. ST_NOMEM (logged), ST_CANCELLED. */
status fit_mlp(const struct layer_sample *s, const struct fit_options *o, struct pool *pool, const float *bias,
               struct mlp *out);
void mlp_free(struct mlp *m); /* of zeroed memory is fine */

#endif
