#ifndef HEARTH_DEVICE_CPU_NEURON_SET_H
#define HEARTH_DEVICE_CPU_NEURON_SET_H

#include "device/cpu/cpu.h"

/* A set of neurons of a layer, numbered 0 .. n - 1 in ascending order: the own index. Activations have 32 slots for
 * each block of the file that has a neuron in the set (kernels/columns.h). Arrays are the arena's. */
struct neuron_set {
    int64_t n, n_blocks;
    bool whole;                      /* one range of whole units: slots are own indices */
    int32_t *ids;                    /* [n] numbers in the file */
    int32_t *slot;                   /* [n] */
    int32_t *block;                  /* [n_blocks] numbers of the blocks in the file */
    int32_t *column;                 /* [n_blocks * 32] own index, -1: not in the set */
};

void neuron_set_lay(struct cpu *c, const struct neuron_list *neurons, struct neuron_set *s);

#endif
