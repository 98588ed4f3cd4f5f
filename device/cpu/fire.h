/* Which of the own neurons of a layer fire, and what they then are: f(gate x, up x) (base/activation.h), times the
 * weight of the expert that they are of.
 *
 * A layer decides in one of five ways (enum decision). A piece of neurons passes through all of its steps on one
 * thread, while its activations are in cache. */
#ifndef HEARTH_DEVICE_CPU_FIRE_H
#define HEARTH_DEVICE_CPU_FIRE_H

#include "device/cpu/single.h"

/* What all layers compute in. */
struct firing {
    struct firing_acts of;
    struct shares shares;            /* the caller's, of the layer at hand */
    struct live_scratch *live;       /* [n_threads] the caller's */
    int64_t most_pairs;              /* of a thread */
};

void firing_lay(struct cpu *c, struct firing *f, const struct widths *widest);
/* h of all shares = what the neurons of a layer make of n tokens. */
void fire(struct cpu *c, struct firing *f, int layer, const struct input *in, uint32_t n);

#endif
