/* What a neuron file says of how often a model's neurons are read, in the forms that plans and their costs want. What
 * is returned is the caller's to free; errors are ST_NOMEM or NULL, logged. */
#ifndef HEARTH_NODE_HEAT_H
#define HEARTH_NODE_HEAT_H

#include <stdbool.h>
#include "sparsity/neurons.h"

/* How often neurons are read, layer by layer. */
struct heat {
    const float **of;  /* [n_layers] of the layer's neurons */
    float *room;       /* what some of that lies in */
};

/* dense: all neurons of what tokens look at are computed, and so an expert's as often as it is chosen; else neurons are
 * read as often as they fire. The neuron file is borrowed; heat_free in any case. */
status heat_of(const struct neurons *n, bool dense, struct heat *h);
void heat_free(struct heat *h);

/* As struct cost_model has them: its `fires`, and of a file that knows experts its `chosen`. */
int64_t *heat_fires(const struct neurons *n);
float *heat_chosen(const struct neurons *n);

#endif
