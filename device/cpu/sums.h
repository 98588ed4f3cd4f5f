#ifndef HEARTH_DEVICE_CPU_SUMS_H
#define HEARTH_DEVICE_CPU_SUMS_H

#include "device/cpu/cpu.h"

struct sums {
    double *sum; /* [n, d] multiples of 2^-30 */
};

/* device.h: export_sums, import_sums, clear_sums. */
void sums_export(struct cpu *c, uint32_t n, const struct sums *sums, bool f16, const struct sum_bytes *to);
void sums_import(struct cpu *c, uint32_t n, const struct sum_bytes *from, struct sums *sums);
void sums_clear(struct cpu *c, uint32_t n, struct sums *sums);

#endif
