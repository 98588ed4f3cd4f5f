/* Launches. From compute capability 9.0 on a kernel is started while the one before it in its stream still runs
 * ("programmatic dependent launch", CUDA C++ Programming Guide): its thread blocks come up, and ask for weights, where
 * those of the one before leave room. Hence the rule of every kernel: until it has called gpu_begin, a thread reads
 * nothing but what no launch writes, and writes nothing.
 *
 * Blocks that come up where there is room just then lie unevenly. Of a launch that takes long and has few blocks for
 * each multiprocessor that costs more than it gains: LAUNCH_AFTER waits for the one before. */
#ifndef HEARTH_KERNELS_CUDA_LAUNCH_CUH
#define HEARTH_KERNELS_CUDA_LAUNCH_CUH

#include <cuda_runtime.h>

#include "kernels/cuda/gpu.h"

#ifdef HEARTH_SIMT
#include <simt_launch.h> /* SIMT_LAUNCH, SHARED_BYTES, simt_mma_m16n8k32, simt_copy_begin */
#define LAUNCH(kernel, grid, block, shared_bytes, g, ...) \
    SIMT_LAUNCH(true, kernel, grid, block, shared_bytes, (g)->stream, ##__VA_ARGS__)
#define LAUNCH_AFTER(kernel, grid, block, shared_bytes, g, ...) \
    SIMT_LAUNCH(false, kernel, grid, block, shared_bytes, (g)->stream, ##__VA_ARGS__)
#else
/* Puts a kernel into g's stream. */
template <typename... P, typename... A>
static inline void gpu_launch(bool overlaps, void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes,
                              const struct gpu *g, const A &...arguments)
{
    enum { OVERLAPS = 90 };
    cudaLaunchAttribute overlap = {};
    overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    overlap.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = shared_bytes;
    config.stream = g->stream;
    config.attrs = &overlap;
    config.numAttrs = overlaps && g->capability >= OVERLAPS;
    cudaLaunchKernelEx(&config, kernel, P(arguments)...);
}
#define LAUNCH(kernel, grid, block, shared_bytes, g, ...) \
    gpu_launch(true, kernel, grid, block, shared_bytes, g, ##__VA_ARGS__)
#define LAUNCH_AFTER(kernel, grid, block, shared_bytes, g, ...) \
    gpu_launch(false, kernel, grid, block, shared_bytes, g, ##__VA_ARGS__)
/* The launch's dynamic shared memory, as bytes. */
#define SHARED_BYTES(name) extern __shared__ __align__(16) unsigned char name[]
#endif

/* Every thread calls it once: waits until the launch before is done, and all that it wrote can be read; then the next
 * one may come up. */
__device__ __forceinline__ void gpu_begin(void)
{
#if defined(HEARTH_SIMT)
    simt_begin();
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
    asm volatile("griddepcontrol.launch_dependents;");
#endif
}

#endif
