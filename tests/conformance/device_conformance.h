/* What every device must do (device/device.h), against the CPU with scalar kernels that runs each sequence by itself. */
#ifndef HEARTH_TESTS_DEVICE_CONFORMANCE_H
#define HEARTH_TESTS_DEVICE_CONFORMANCE_H

#include "device/device.h"

/* Whether a device of this kind conforms for a model: batches of random runs over scattered pages, alone and with a
 * second one that has a part of the heads, neurons and rows; pages copied; messages within their bounds. What does not
 * hold is printed. kernels and n_threads: of the device under test, where it computes with them. */
bool device_conforms(const struct device_ops *ops, const struct model *m, const struct kernels *kernels, int n_threads);

#endif
