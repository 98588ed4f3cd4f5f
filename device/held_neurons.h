/* What a device holds of neurons: the own ones of all layers, in sets, and the down projections of guests. */
#ifndef HEARTH_DEVICE_HELD_NEURONS_H
#define HEARTH_DEVICE_HELD_NEURONS_H

#include "device/ffn_layer.h"

/* Neurons of another holder whose down projection is here. */
struct guest {
    struct neuron_set set;
    struct down down;
};

/* The most that a token needs of a layer: own neurons, slots of their sets, hidden values of an MLP. */
struct widths {
    int64_t neurons, slots, hidden;
    bool sparse;                     /* single neurons are computed in some layer */
};

struct held_neurons {
    int *first;                      /* [n_layers + 1] layer l has the sets [first[l], first[l + 1]) */
    struct ffn_layer *sets;          /* [n_sets] of all layers */
    int n_sets;
    struct guest *guests;            /* [shard.n_guests] */
    struct widths *of_bundle;        /* [bundles of a layer, at most] those of the layer that is looked at */
};

/* ST_NOMEM (logged); to be freed in any case. */
status held_neurons_new(const struct device_options *o, struct held_neurons *h);
void held_neurons_free(const struct device_options *o, struct held_neurons *h); /* {0} is fine */
void held_neurons_lay(const struct laying *to, struct held_neurons *h, int layer);
void held_neurons_load(struct loading *l, struct held_neurons *h, int layer);
struct widths held_neurons_widest(const struct device_options *o, const struct held_neurons *h);

/* What a device computes them in: gate and up [n_batch, widest layer], activations and what predictors read. */
struct firing_acts {
    float *gate, *up;                /* [n, own neurons of the widest layer] */
    struct acts activated;           /* [n, their slots] what neurons are */
    struct acts hidden;              /* [n, widest r] of an MLP */
    struct acts residual;            /* [n, d] what a PowerInfer model's predictors read */
};

void firing_acts_lay(const struct laying *to, struct firing_acts *f, const struct widths *widest);

/* Own neurons of a set whose activation (h [n, cols], in the host's memory) is not zero: pairs (index, value), token by
 * token; to NULL: they are counted. Returns how many. */
uint32_t held_neurons_live(const struct neuron_set *set, const float *h, int64_t cols, uint32_t n,
                           const struct live *to);

#endif
