/* The language of kernels, for hipcc: what HIP lacks of CUDA's, or computes in another way. */
#ifndef HEARTH_KERNELS_HIP_CUDA_RUNTIME_H
#define HEARTH_KERNELS_HIP_CUDA_RUNTIME_H

#include <stdint.h>
#include <hip/hip_runtime.h>

#include "kernels/hip/cuda_runtime_api.h"

/* Warps have 32 lanes, masks as many bits. */
#if defined(__HIP_DEVICE_COMPILE__) && __AMDGCN_WAVEFRONT_SIZE != 32
#error "hearth's kernels need wavefronts of 32 lanes: GPUs of AMD from RDNA on (gfx10, gfx11), not GCN or CDNA"
#endif

#define __trap() __builtin_trap()

/* HIP's splits arguments at the commas of templates. How many blocks are to be resident is NVIDIA's. */
#undef __launch_bounds__
#define __launch_bounds__(...) __attribute__((amdgpu_flat_work_group_size(1, hip_threads(__VA_ARGS__))))
static constexpr int hip_threads(int threads, int = 1) { return threads; }

namespace { /* which has some of HIP's functions of these names */

/* ---- launches: each waits for the one before ---- */

struct cudaLaunchAttribute {
    enum { cudaLaunchAttributeProgrammaticStreamSerialization } id;
    struct {
        int programmaticStreamSerializationAllowed;
    } val;
};
static constexpr auto cudaLaunchAttributeProgrammaticStreamSerialization =
    cudaLaunchAttribute::cudaLaunchAttributeProgrammaticStreamSerialization;
struct cudaLaunchConfig_t {
    dim3 gridDim, blockDim;
    size_t dynamicSmemBytes;
    hipStream_t stream;
    cudaLaunchAttribute *attrs;
    unsigned numAttrs;
};
template <class... P>
static inline void cudaLaunchKernelEx(const cudaLaunchConfig_t *c, void (*kernel)(P...), P... arguments)
{
    kernel<<<c->gridDim, c->blockDim, c->dynamicSmemBytes, c->stream>>>(arguments...);
}

/* ---- lanes: those of a wavefront run in step ---- */

#define __shfl_sync(mask, ...) __shfl(__VA_ARGS__)
#define __shfl_xor_sync(mask, ...) __shfl_xor(__VA_ARGS__)

__device__ __forceinline__ unsigned __ballot_sync(unsigned mask, int condition)
{
    return (unsigned)__ballot(condition) & mask;
}
__device__ __forceinline__ int __any_sync(unsigned mask, int condition)
{
    return __ballot_sync(mask, condition) != 0;
}
__device__ __forceinline__ int __all_sync(unsigned mask, int condition)
{
    return __ballot_sync(mask, condition) == mask;
}
__device__ __forceinline__ void __syncwarp(unsigned mask)
{
    (void)mask;
    __builtin_amdgcn_fence(__ATOMIC_ACQ_REL, "wavefront");
    __builtin_amdgcn_wave_barrier();
}

/* ---- numbers ---- */

/* HIP's own product and sum are fused, and its root is approximate. */
#pragma clang fp contract(off)
__device__ __forceinline__ float hip_add(float a, float b) { return a + b; }
__device__ __forceinline__ float hip_sub(float a, float b) { return a - b; }
__device__ __forceinline__ float hip_mul(float a, float b) { return a * b; }
__device__ __forceinline__ double hip_mul_f64(double a, double b) { return a * b; }
#define __fadd_rn hip_add
#define __fsub_rn hip_sub
#define __fmul_rn hip_mul
#define __dmul_rn hip_mul_f64
#define __fsqrt_rn __ocml_sqrt_f32

__device__ __forceinline__ int __dp4a(int a, int b, int sum)
{
#if defined(__GFX11__)
    return __builtin_amdgcn_sudot4(true, a, true, b, sum, false);
#elif defined(__gfx1030__)
    return __builtin_amdgcn_sdot4(a, b, sum, false);
#else
    for (int i = 0; i < 32; i += 8)
        sum += (int8_t)(a >> i) * (int8_t)(b >> i);
    return sum;
#endif
}

/* ---- memory ---- */

/* Of types that HIP's leave out. */
template <class T> __device__ __forceinline__ T __ldg(const T *p) { return *p; }

/* From where all compute units see the same. */
__device__ __forceinline__ float __ldcg(const float *p)
{
    return __hip_atomic_load(p, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_AGENT);
}
__device__ __forceinline__ float4 __ldcg(const float4 *p)
{
    const float *q = &p->x;
    return make_float4(__ldcg(q), __ldcg(q + 1), __ldcg(q + 2), __ldcg(q + 3));
}

}

#endif
