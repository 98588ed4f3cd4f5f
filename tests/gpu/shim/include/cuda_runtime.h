/* The language of kernels, for a C++ compiler of the CPU. */
#ifndef SIMT_CUDA_RUNTIME_H
#define SIMT_CUDA_RUNTIME_H

#include <cuda_runtime_api.h>

#ifdef __cplusplus

#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) __attribute__((aligned(n)))
/* Of a section of its own, by which the shim finds it (../shared.c): the attribute that says so of templates too. */
#define __shared__ static __attribute__((noinit))
#define __builtin_assume(condition) ((void)0)
#define warpSize 32

#include <simt_launch.h>
#include <simt_math.h>
#include <simt_vectors.h>
#include <simt_warp.h>

#endif

#endif
