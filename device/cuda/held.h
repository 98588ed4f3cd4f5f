/* A set of neurons that a GPU holds: the host's arrays, and those that kernels read. */
#ifndef HEARTH_DEVICE_CUDA_HELD_H
#define HEARTH_DEVICE_CUDA_HELD_H

#include "device/cuda/cuda.h"
#include "device/neuron_set.h"

struct loader;

struct held {
    const struct neuron_list *neurons;
    struct neuron_set set;           /* arrays are the host's, there from loading on */
    int32_t *slot, *block, *column;  /* the same on the GPU */
};

void cuda_held_lay(struct cuda *c, const struct neuron_list *neurons, struct held *h);
void cuda_held_load(struct loader *l, struct held *h);
void cuda_held_free(struct held *h);

#endif
