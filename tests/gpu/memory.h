/* The GPU's memory as tests use it: copies with canaries, and a stream. Any CUDA error fails the test that runs. */
#ifndef HEARTH_TESTS_GPU_MEMORY_H
#define HEARTH_TESTS_GPU_MEMORY_H

#include <stddef.h>

#include "kernels/cuda/gpu.h"

/* The first GPU with a stream of its own, which does not wait for the default one; the same at every call. NULL where
 * there is no GPU: says SKIP and why; exit with 77 then. */
struct gpu *gpu_for_test(void);

/* `bytes` (0 is allowed) of the GPU's memory with a canary behind them, filled from `host` (NULL: with 0xa5). */
void *gpu_copy_of(const void *host, size_t bytes);
/* Checks the canary and frees. NULL: nothing. */
void gpu_release(void *on_gpu);

/* Waits for the stream, then copies out of, or into, the GPU's memory. */
void gpu_read(void *host, const void *on_gpu, size_t bytes);
void gpu_write(void *on_gpu, const void *host, size_t bytes);
/* Some of everything that a launch may clear, with other things in it; and whether it has been cleared: then it is
 * freed. */
struct gpu_clearing gpu_to_clear(void);
void gpu_expect_cleared(struct gpu_clearing *c);
/* Waits for all that was launched. */
void gpu_sync(struct gpu *g);

#endif
