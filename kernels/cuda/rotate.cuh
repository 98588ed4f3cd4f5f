/* What is done to a head of a token on its way to the cache: norm, rotation, f16. A warp has it, in shared memory. */
#ifndef HEARTH_KERNELS_CUDA_ROTATE_CUH
#define HEARTH_KERNELS_CUDA_ROTATE_CUH

#include "kernels/cuda/common.cuh"
#include "kernels/kernels.h"

/* What RMS norm multiplies x [n] with. A lane has four of the 128 lanes of sums: its own and every 32nd from there. */
static __device__ __forceinline__ float norm_scale(const float *x, int n, float eps)
{
    float sum[NORM_LANES / LANES] = {};
#pragma unroll
    for (int j = 0; j < NORM_LANES / LANES; j++)
        for (int i = threadIdx.x % LANES + j * LANES; i < n; i += NORM_LANES)
            sum[j] = __fmaf_rn(x[i], x[i], sum[j]);
    float all = __fadd_rn(__fadd_rn(sum[0], sum[2]), __fadd_rn(sum[1], sum[3]));
#pragma unroll
    for (int i = LANES / 2; i > 0; i /= 2)
        all = __fadd_rn(all, __shfl_xor_sync(FULL_MASK, all, i));
    const float mean = __fdiv_rn(all, __int2float_rn(n));
    return __fdiv_rn(1.0f, __fsqrt_rn(__fadd_rn(mean, eps)));
}

/* Pair i; x is shared. */
static __device__ __forceinline__ void rotate(float *x, int i, int half, bool neox, float c, float s)
{
    const int first = neox ? i : 2 * i, second = neox ? i + half : 2 * i + 1;
    const float a = x[first], b = x[second];
    x[first] = __fmaf_rn(a, c, -__fmul_rn(b, s));
    x[second] = __fmaf_rn(a, s, __fmul_rn(b, c));
}

static __device__ __forceinline__ uint32_t two_halves(float low, float high)
{
    return half_bits_of_f32(low) | (uint32_t)half_bits_of_f32(high) << 16;
}

/* Four values, from `first` on, into place `place` of a page. */
static __device__ __forceinline__ void keep(uint16_t *page, bool pairs, int dim, int first, int place, float4 x)
{
    const uint2 halves = make_uint2(two_halves(x.x, x.y), two_halves(x.z, x.w));
    if (pairs) {
        uint32_t *to = (uint32_t *)page + first / 2 * KV_PAGE + place;
        to[0] = halves.x;
        to[KV_PAGE] = halves.y;
    } else {
        *(uint2 *)(page + place * dim + first) = halves;
    }
}

#endif
