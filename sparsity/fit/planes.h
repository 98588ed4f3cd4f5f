/* The predictor without training: the top bits of the deciding projection's own codes estimate it. */
#ifndef HEARTH_SPARSITY_FIT_PLANES_H
#define HEARTH_SPARSITY_FIT_PLANES_H

#include "sparsity/fit/statistics.h"

/* value = slope * estimate + offset, give or take `spread`; spread 0: too few samples to know. */
struct line {
    double slope, offset, spread;
};

/* What is decided in a bundle, over its samples: [n, width] each. */
struct plane_samples {
    int64_t n, n_fit, width;
    const float *value;    /* of the deciding projection, without its bias */
    const float *estimate; /* of that */
    const float *bias;     /* [width] or NULL */
    const bool *live;
    const bool *stands;    /* [n] samples that stand for the layer */
};

/* The line of each neuron over the fitting samples; `live` and `stands` are not looked at. With fewer than
 * FIT_MIN_CHOSEN samples the value is the estimate. ST_NOMEM (logged). */
status fit_lines(const struct plane_samples *s, struct line *lines /* [width] */);

/* How many spreads above zero a value is thought to be, of the validating samples that stand for the layer; infinite
 * without a spread. Row by row into margin and live; returns how many rows. */
int64_t plane_margins(const struct plane_samples *s, const struct line *lines, float *margin, bool *live);

/* Neurons are flagged where estimate > bound: all at the same chance to be positive, the value being normal about its
 * line, which flags fewest. limit: of fit_limit over the margins. Without a spread always. */
void plane_bounds(const struct line *lines, int64_t n, float limit, float *bound);

#endif
