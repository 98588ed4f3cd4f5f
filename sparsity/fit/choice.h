/* Which samples of a layer the fit of a bundle's neurons looks at. Thread-safe as long as outputs differ. */
#ifndef HEARTH_SPARSITY_FIT_CHOICE_H
#define HEARTH_SPARSITY_FIT_CHOICE_H

#include <stdbool.h>
#include <stdint.h>
#include "sparsity/fit/fit.h"

/* Some samples stand for the layer: evenly spread over those that fit and those that validate, as many as make about so
 * many pairs of a neuron and a token. A bundle that all tokens need looks at these; an expert at those of them that
 * have chosen it, and beside them at others that have, which are few enough. */
struct choice {
    int64_t n, n_fit;     /* the first n_fit fit, the others validate */
    int64_t *token;       /* [n] which samples */
    bool *stands;         /* [n] it is one of those that stand for the layer */
    float *weight;        /* [n] of the bundle for it */
};

/* ST_NOMEM (logged). choice_free in any case. */
status choice_make(const struct layer_sample *s, int bundle, int64_t n_pairs, struct choice *out);
void choice_free(struct choice *c); /* of zeroed memory is fine */
/* How many samples stand for a layer, and how many pairs they make. */
int64_t choice_standing(const struct layer_sample *s, int64_t n_pairs);
int64_t choice_pairs(const struct layer_sample *s, int64_t n_pairs);

#endif
