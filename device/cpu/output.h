/* The own rows of the output matrix. */
#ifndef HEARTH_DEVICE_CPU_OUTPUT_H
#define HEARTH_DEVICE_CPU_OUTPUT_H

#include "device/cpu/cpu.h"
#include "device/loading.h"

struct output {
    struct packed rows; /* [own rows, d] */
};

void output_lay(struct cpu *c, struct output *o);
void output_load(struct loading *l, struct output *o);
/* device.h: logits. */
void output_compute(struct cpu *c, const struct output *o, const struct acts *x, uint32_t n, float *logits,
                    int64_t stride);

#endif
