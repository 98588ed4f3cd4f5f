/* What the fits of a layer share: which samples they look at, which neurons are live in them, how well a predictor did.
 * Thread-safe as long as outputs differ. */
#ifndef HEARTH_SPARSITY_FIT_STATISTICS_H
#define HEARTH_SPARSITY_FIT_STATISTICS_H

#include <stdbool.h>
#include <stdint.h>
#include "sparsity/fit/choice.h"
#include "sparsity/fit/fit.h"
#include "sparsity/fit/products.h"

/* The samples of a layer that the fit of a bundle looks at. */
struct samples {
    struct products x;    /* what they are, quantised */
    struct choice choice; /* which they are */
};

/* Free with samples_close, also after ST_NOMEM (logged). n_pairs: choice_make. */
status samples_open(struct samples *s, const struct kernels *k, struct pool *pool, const struct layer_sample *of,
                    int bundle, int64_t n_pairs);
void samples_close(struct samples *s); /* of zeroed memory is fine */

/* Rows of margins: what a bundle's neurons are for a token. */
struct margin_rows {
    int64_t n, width;
};

/* How sure a predictor is that a neuron fires, over validating samples. */
struct margins {
    const struct margin_rows *parts; /* [n_parts] one after the other */
    int n_parts;
    int64_t n;           /* pairs, of all parts */
    const float *margin; /* [n] */
    const bool *live;    /* [n] */
};

/* The limit at and above which neurons are flagged. Of the live ones a share of at most `miss` is missed, by more than
 * one standard error; where that flags too many for the wanted accuracy, more are missed, down to the wanted recall.
 * ST_NOMEM (logged). */
status fit_limit(const struct margins *m, const struct fit_options *o, float *limit,
                 struct predictor_quality *quality);

#endif
