/* What bounds the other kernels: reading memory, and launching at all. */
#ifndef HEARTH_KERNELS_CUDA_MEASURE_H
#define HEARTH_KERNELS_CUDA_MEASURE_H

#include "kernels/cuda/gpu.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Reads all of p, n_words a multiple of 4, and writes *sink if the sum is a certain one. */
void gpu_read_words(const struct gpu *g, const void *p, int64_t n_words, uint32_t *sink);
/* Does nothing. */
void gpu_nothing(const struct gpu *g);

#ifdef __cplusplus
}
#endif

#endif
