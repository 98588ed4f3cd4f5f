/* Which of the own neurons of a layer fire, and what they then are: f(gate x, up x) (base/activation.h). Decisions and
 * bits are those of device/cpu/fire.c; lists of pairs stay on the GPU. */
#ifndef HEARTH_DEVICE_CUDA_FIRE_H
#define HEARTH_DEVICE_CUDA_FIRE_H

#include "device/cuda/input.h"
#include "device/held_neurons.h"

/* What all layers compute in. */
struct firing {
    struct firing_acts of;
    struct gpu_pairs pairs;          /* [n, widest own set] */
};

void cuda_firing_lay(struct cuda *c, struct firing *f, const struct widths *widest);
/* f->activated[n, cols] = zeros. */
void cuda_fire_begin(struct cuda *c, struct firing *f, int64_t cols, uint32_t n);
/* f->activated[n, slots] = what the neurons of a layer make of n tokens. counts: the set's. begin: the sums of which
 * the set's are the first are cleared for cuda_down_project; NULL: there are none. */
void cuda_fire(struct cuda *c, struct firing *f, int layer, const struct ffn_layer *s, struct gpu_counts *counts,
               const struct input *in, uint32_t n, const struct gpu_sums *begin);
/* Counts that, as far as the host knows. */
void cuda_fire_count(struct cuda *c, const struct ffn_layer *s, uint32_t n);

#endif
