#ifndef HEARTH_DEVICE_NEURON_SET_H
#define HEARTH_DEVICE_NEURON_SET_H

#include "device/device.h"
#include "device/lay.h"
#include "model/model.h"

struct loading;

/* A set of neurons of a bundle, numbered 0 .. n - 1 in ascending order: the own index. Activations have 32 slots for
 * each block of the bundle that has a neuron in the set (kernels/columns.h). */
struct neuron_set {
    const struct neuron_list *neurons;
    int64_t n, n_blocks;
    bool whole;                      /* one range of whole units: slots are own indices */
    /* In the host's memory, there from loading on: */
    int32_t *ids;                    /* [n] numbers in the bundle */
    int32_t *slot;                   /* [n] */
    int32_t *block;                  /* [n_blocks] numbers of the blocks in the bundle */
    int32_t *column;                 /* [n_blocks * 32] own index, -1: not in the set */
    struct {
        int32_t *slot, *block, *column;
    } at;                            /* the same where the device computes */
    int32_t *aside;                  /* what the host's arrays lie in, if that is another memory */
};

/* Fills in everything but the arrays. unit: model_neuron_unit. */
void neuron_set_shape(struct neuron_set *s, int64_t unit, const struct bundle *of, const struct neuron_list *neurons);
void neuron_set_lay(const struct laying *to, struct neuron_set *s, const struct bundle *of,
                    const struct neuron_list *neurons);
void neuron_set_load(struct loading *l, struct neuron_set *s);
void neuron_set_free(struct neuron_set *s);

#endif
