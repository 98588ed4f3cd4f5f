/* The router of a layer with experts, as a device has it. */
#ifndef HEARTH_DEVICE_ROUTER_WEIGHTS_H
#define HEARTH_DEVICE_ROUTER_WEIGHTS_H

#include "device/lay.h"
#include "device/loading.h"

struct router_weights {
    struct packed rows, shared;      /* [n_experts, d], [1, d]; empty: the layer has none */
    float *bias, *choice_bias;       /* [n_experts] or NULL */
};

void router_lay(struct arena *a, const struct model *m, int layer, struct router_weights *r);
void router_load(struct loading *l, int layer, const struct router_weights *r);

#endif
