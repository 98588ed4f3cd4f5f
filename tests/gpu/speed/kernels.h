/* What bounds the other kernels: reading memory, and launching at all. */
#ifndef HEARTH_TESTS_GPU_SPEED_KERNELS_H
#define HEARTH_TESTS_GPU_SPEED_KERNELS_H

#include "kernels/cuda/gpu.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Reads all of p, n_words a multiple of 4, and writes *sink if the sum is a certain one. */
void speed_read(const struct gpu *g, const void *p, int64_t n_words, uint32_t *sink);
void speed_nothing(const struct gpu *g);

#ifdef __cplusplus
}
#endif

#endif
