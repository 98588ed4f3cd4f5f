/* What every device must do (device/device.h), against the CPU with scalar kernels that runs each sequence by
 * itself. */
#ifndef HEARTH_TESTS_DEVICE_CONFORMANCE_H
#define HEARTH_TESTS_DEVICE_CONFORMANCE_H

#include "device/device.h"
#include "sparsity/neurons.h"

/* What is tried. Zeros mean dense, and as much as a CPU does in a second or two. */
struct device_trial {
    const struct device_ops *ops;
    const struct model *m;
    /* Of the device under test, where it computes with them. */
    const struct kernels *kernels;
    int n_threads;
    enum sparse_mode sparse;
    enum predictor predictor;
    const struct neurons *neurons;
    int steps;            /* batches of random runs */
    uint32_t n_batch;     /* tokens of a batch, at most */
    bool brief;           /* all on one device, and cut in two, and no more */
};

/* Whether a device of this kind conforms: batches of random runs over scattered pages, alone and with a second one that
 * has a part of the heads, neurons and rows, or neurons whose down projections the first has; pages copied; messages
 * within their bounds. What does not hold is printed. */
bool device_conforms(const struct device_trial *trial);

/* What a neuron file may say of a model; any numbers do. Differs from neuron to neuron of a layer. Ends the program
 * where there is no memory. */
struct neurons device_measures(const struct model *m, enum activation a);
void device_measures_free(struct neurons *n);

#endif
