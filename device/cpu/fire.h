/* Which of the own neurons of a layer fire, and what they then are: f(gate x, up x) (base/activation.h).
 *
 * A layer decides in one of five ways (enum decision). All but the dense one end alike: pairs of a neuron and a token
 * are narrowed down, and what is left is computed row by row. A piece of neurons passes through all of its steps on one
 * thread, while its activations are in cache. */
#ifndef HEARTH_DEVICE_CPU_FIRE_H
#define HEARTH_DEVICE_CPU_FIRE_H

#include "device/cpu/input.h"
#include "device/held_neurons.h"

/* What a thread needs to compute single neurons: pairs of an own neuron and a token for which it is computed. */
struct live_scratch {
    int32_t *row, *token;            /* [n_pairs] */
    float *gate, *up;                /* [n_pairs] */
    struct device_counts counts;     /* of this thread, of the layer at hand */
};

/* What all layers compute in. */
struct firing {
    struct firing_acts of;
    struct lane_acts lanes;          /* [n, d] x, for single rows */
    struct live_scratch *live;       /* [n_threads] the caller's */
    int64_t most_pairs;              /* of a thread */
};

void firing_lay(struct cpu *c, struct firing *f, const struct widths *widest);
/* f->activated[n, slots] = what the neurons of a layer make of n tokens. */
void fire(struct cpu *c, struct firing *f, int layer, struct ffn_layer *s, const struct input *in, uint32_t n);

#endif
