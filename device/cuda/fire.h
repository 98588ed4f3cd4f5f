/* Which of the own neurons of a layer fire, and what they then are: f(gate x, up x) (base/activation.h). Decisions and
 * bits are those of device/cpu/fire.c; lists of pairs stay on the GPU. */
#ifndef HEARTH_DEVICE_CUDA_FIRE_H
#define HEARTH_DEVICE_CUDA_FIRE_H

#include "device/cuda/ffn_layer.h"
#include "device/cuda/input.h"

/* What all layers compute in. */
struct firing {
    float *gate, *up;                /* [n, widest own set] */
    struct acts activated;           /* [n, slots of the widest set] what neurons are */
    struct acts hidden;              /* [n, widest r] of an MLP */
    struct acts residual;            /* [n, d] what a PowerInfer model's predictors read */
    struct gpu_pairs pairs;          /* [n, widest own set] */
};

/* The most of a layer: own neurons, slots of a set, hidden values of an MLP. */
struct widths {
    int64_t neurons, slots, hidden;
    bool sparse;                     /* single neurons are computed in some layer */
};

void cuda_firing_lay(struct cuda *c, struct firing *f, const struct widths *widest);
/* f->activated[n, cols] = zeros. */
void cuda_fire_begin(struct cuda *c, struct firing *f, int64_t cols, uint32_t n);
/* f->activated[n, slots] = what the neurons of a layer make of n tokens. counts: the set's. */
void cuda_fire(struct cuda *c, struct firing *f, int layer, const struct ffn_layer *s, struct gpu_counts *counts,
               const struct input *in, uint32_t n);
/* Counts that, as far as the host knows. */
void cuda_fire_count(struct cuda *c, struct ffn_layer *s, uint32_t n);

#endif
