/* Inside of the MLP's fit. */
#ifndef HEARTH_SPARSITY_FIT_MLP_INSIDE_H
#define HEARTH_SPARSITY_FIT_MLP_INSIDE_H

#include "sparsity/fit/mlp.h"

/* A layer as the training sees it. */
struct mlp_data {
    struct pool *pool;
    int64_t d_model, d_ff;
    int64_t n;            /* fitting samples */
    const float *x;       /* [n, d_model] */
    const float *weight;  /* [d_ff, d_model] the deciding projection */
    const float *bias;    /* [d_ff] or NULL */
    const float *weight2; /* [d_ff, d_model] of a second projection that must be positive too, or NULL */
};

/* The predictor: its logits are fc2 relu(fc1 x). */
struct mlp_net {
    enum dtype type;
    int64_t r;
    float *fc1;                       /* [r, d_model] */
    float *fc2;                       /* [d_ff, r] */
    uint8_t *fc1_blocks, *fc2_blocks; /* the same, quantised */
};

/* What the net of any r starts from. */
struct mlp_factors {
    float *moments;  /* [d_model, d_model] second moments of x, about zero */
    float *mean;     /* [d_model] */
    float *constant; /* [d_model] direction along which x is nearly 1 */
    float *value_mean, *value_size; /* [d_ff] mean and spread of the deciding values */
    float *loading;  /* [d_ff, d_model] of the values, over their spread, on components of falling variance */
    float *component; /* [d_model, d_model] these components of x - mean, of variance 1 */
    float *share;    /* [d_model] eigenvalues, falling */
};

/* The best linear predictors of all ranks at once: reduced-rank regression of the deciding values on x. ST_NOMEM,
 * ST_INTERNAL (logged); free with mlp_factors_free, also then. */
status mlp_factorise(const struct mlp_data *d, struct mlp_factors *f);
void mlp_factors_free(struct mlp_factors *f);

/* Sets a net (its memory is there) to the linear predictor of its rank. relu passes it whole: every hidden value is
 * shifted along the direction in which x is nearly constant, and hidden values of that alone take the shift out. The
 * logit is about what a logistic regression of firing on the predicted value would say. */
void mlp_start(const struct mlp_data *d, const struct mlp_factors *f, struct mlp_net *net);

/* Sets the blocks from the f32 weights, which become what the blocks hold. ST_NOMEM, ST_INTERNAL (logged). */
status mlp_quantise(const struct mlp_data *d, const struct mlp_factors *f, struct mlp_net *net);

/* Trains the blocks further: Adam (Kingma and Ba, 2015) on the logistic loss of firing, through the rounding as if it
 * were not there (Bengio et al., 2013), with the scales as they are. ST_NOMEM (logged), ST_CANCELLED. */
status mlp_train(const struct mlp_data *d, const struct fit_options *o, struct mlp_net *net);

#endif
