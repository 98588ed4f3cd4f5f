/* What the fit of a layer is made of. Nobody outside includes it. */
#ifndef HEARTH_SPARSITY_FIT_FIT_INSIDE_H
#define HEARTH_SPARSITY_FIT_FIT_INSIDE_H

#include "sparsity/fit/fit.h"
#include "sparsity/fit/mlp.h"

/* Everything that one layer's fit needs. */
struct fit {
    const struct layer_sample *s;
    const struct fit_options *o;
    const struct layer_weights *w;
    struct pool *pool;
    int64_t d_model, n; /* n: neurons */
    float *fired, *strength, *weight, *bound, *bias; /* [n] */
    float *chosen; /* [n_experts] or NULL */
    float *lines; /* [4, n] slope and offset of gate and up; NULL unless estimates are used as values */
    struct mlp mlp;
    struct fitted_layer fitted; /* points to what is above, until it is copied */
};

/* The matrix whose value says whether a neuron fires. */
static inline const struct matrix *deciding(const struct bundle *b) { return b->gate.data ? &b->gate : &b->up; }

/* Says how far the layer is; false: it is to end. */
static inline bool report(const struct fit_options *o, float done)
{
    return !o->progress || o->progress(o->progress_arg, done);
}

/* Sets what planes need, or a threshold: of all bundles, whose matrices have planes. ST_NOMEM (logged),
 * ST_CANCELLED. */
status fit_bounds(struct fit *f);
status fit_thresholds(struct fit *f);

#endif
