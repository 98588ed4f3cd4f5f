/* What the fits of a layer share: which samples they look at, which neurons are live in them, how well a predictor did.
 * Thread-safe as long as outputs differ. */
#ifndef HEARTH_SPARSITY_FIT_STATISTICS_H
#define HEARTH_SPARSITY_FIT_STATISTICS_H

#include <stdbool.h>
#include <stdint.h>
#include "sparsity/fit/fit.h"
#include "sparsity/fit/products.h"

/* Some samples of a layer: the first n_fit fit, the others validate. */
struct samples {
    struct products x;
    int64_t n_fit;
};

/* At most n_most of the n samples x, spread evenly over both parts, quantised. Free with samples_close, also after
 * ST_NOMEM (logged). */
status samples_open(struct samples *s, const struct kernels *k, struct pool *pool, const float *x, int64_t n,
                    int64_t n_fit, int64_t n_most, int64_t cols);
void samples_close(struct samples *s); /* of zeroed memory is fine */

/* How sure a predictor is that a neuron fires, over validating samples. */
struct margins {
    int64_t n, d_ff;
    const float *margin; /* [n, d_ff] */
    const bool *live;    /* [n, d_ff] */
};

/* The limit at and above which neurons are flagged. Of the live ones a share of at most `miss` is missed, by more than
 * one standard error; where that flags too many for the wanted accuracy, more are missed, down to the wanted recall.
 * ST_NOMEM (logged). */
status fit_limit(const struct margins *m, const struct fit_options *o, float *limit,
                 struct predictor_quality *quality);

#endif
