#ifndef HEARTH_DEVICE_CPU_DOWN_H
#define HEARTH_DEVICE_CPU_DOWN_H

#include "device/cpu/cpu.h"
#include "device/down.h"

/* sum[n, d] = the part of the neurons whose activations are in h. */
void down_project(struct cpu *c, const struct down *d, const struct acts *h, uint32_t n, double *sum);

#endif
