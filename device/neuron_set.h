#ifndef HEARTH_DEVICE_NEURON_SET_H
#define HEARTH_DEVICE_NEURON_SET_H

#include "device/device.h"
#include "model/model.h"

/* A set of neurons of a layer, numbered 0 .. n - 1 in ascending order: the own index. Activations have 32 slots for
 * each block of the file that has a neuron in the set (kernels/columns.h). Arrays are the device's. */
struct neuron_set {
    int64_t n, n_blocks;
    bool whole;                      /* one range of whole units: slots are own indices */
    int32_t *ids;                    /* [n] numbers in the file */
    int32_t *slot;                   /* [n] */
    int32_t *block;                  /* [n_blocks] numbers of the blocks in the file */
    int32_t *column;                 /* [n_blocks * 32] own index, -1: not in the set */
};

/* Fills in everything but the arrays. */
void neuron_set_shape(struct neuron_set *s, const struct model *m, const struct neuron_list *neurons);
/* Fills the arrays, in the host's memory. */
void neuron_set_fill(struct neuron_set *s, const struct neuron_list *neurons);

/* to[i] = from[ids[i]] * weight[ids[i]]; from NULL: `otherwise` instead, weight NULL: 1. */
void neuron_set_pick(const struct neuron_set *s, const float *from, float otherwise, const float *weight, float *to);

#endif
