#ifndef HEARTH_DEVICE_CUDA_DOWN_H
#define HEARTH_DEVICE_CUDA_DOWN_H

#include "device/cuda/cuda.h"
#include "device/down.h"

/* The segments that the blocks of columns form. */
struct ranges {
    struct gpu_range *range;         /* [n] */
    int n;
};

void cuda_ranges_lay(struct cuda *c, const struct down *d, struct ranges *r);
void cuda_ranges_load(struct loading *l, const struct down *d, struct ranges *r);
/* Whether h is to be quantised for that: columns do it on the way. */
bool cuda_down_reads_codes(const struct cuda *c, const struct down *d, int layer);
/* sums += the part of the neurons whose activations are in h. Not add: they were cleared as cuda_fire does, or a matrix
 * gives all of them. */
void cuda_down_project(struct cuda *c, const struct down *d, const struct ranges *r, const struct acts *h, uint32_t n,
                       const struct gpu_sums *sums, bool add);

#endif
