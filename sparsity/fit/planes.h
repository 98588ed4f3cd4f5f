/* The predictor without training: the top bits of the deciding projection's own codes estimate it. */
#ifndef HEARTH_SPARSITY_FIT_PLANES_H
#define HEARTH_SPARSITY_FIT_PLANES_H

#include "sparsity/fit/statistics.h"

/* value = slope * estimate + offset, give or take `spread`. */
struct line {
    double slope, offset, spread;
};

/* What is decided, over the samples: [n, d_ff] each. */
struct plane_samples {
    int64_t n, n_fit, d_ff;
    const float *value;  /* of the deciding projection, without its bias */
    float *estimate;     /* of that; overwritten */
    const float *bias;   /* [d_ff] or NULL */
    const bool *live;
};

/* The line of each neuron [d_ff] over the fitting samples; `live` is not looked at. malloc'ed; NULL: ST_NOMEM (logged). */
struct line *fit_lines(const struct plane_samples *s);

/* A bound for each neuron, flagged where estimate > bound, as fit_limit has it. The value is taken to be normal about a
 * line through the estimate, fitted for each neuron; all neurons are flagged at the same chance to be positive, which
 * flags fewest. ST_NOMEM (logged). */
status fit_planes(const struct plane_samples *s, const struct fit_options *o, float *bound,
                  struct predictor_quality *quality);

#endif
