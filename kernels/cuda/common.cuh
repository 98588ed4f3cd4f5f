/* What kernels share: numbers, lanes, memory, tensor cores; types of weights are in types.cuh, launches in launch.cuh.
 *
 * Every float operation that has an order is an intrinsic of one rounding (__fmaf_rn, __fadd_rn, __fmul_rn, ...), so
 * that no compiler contracts what the reference does not. The same sources run on a CPU over tests/gpu/shim
 * (HEARTH_SIMT). */
#ifndef HEARTH_KERNELS_CUDA_COMMON_CUH
#define HEARTH_KERNELS_CUDA_COMMON_CUH

#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <stdint.h>

#include "base/activation.h"
#include "base/dtype.h"
#include "kernels/cuda/gpu.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/types.cuh"

static constexpr int LANES = 32;
static constexpr unsigned FULL_MASK = 0xffffffffu;

/* ---- numbers ---- */

__device__ __forceinline__ float f32_of_half_bits(uint16_t h) { return __half2float(__ushort_as_half(h)); }

/* Round to nearest even. */
__device__ __forceinline__ uint16_t half_bits_of_f32(float f) { return __half_as_ushort(__float2half_rn(f)); }

__device__ __forceinline__ float f32_of_bf16_bits(uint16_t h) { return __uint_as_float((uint32_t)h << 16); }

/* base/exactmath.h's exp_f32. */
__device__ __forceinline__ float gpu_exp(float x)
{
    x = -87.0f > x ? -87.0f : x; /* NaN stays */
    x = 88.0f < x ? 88.0f : x;
    const float shifted = __fadd_rn(__fmul_rn(x, 0x1.715476p+0f), 0x1.8p23f);
    const float n = __fsub_rn(shifted, 0x1.8p23f);
    float r = __fmaf_rn(n, -0x1.62e400p-1f, x);
    r = __fmaf_rn(n, -0x1.7f7d1cp-20f, r);
    float p = __fmaf_rn(0x1.6a23cep-10f, r, 0x1.123a20p-7f);
    p = __fmaf_rn(p, r, 0x1.5558f2p-5f);
    p = __fmaf_rn(p, r, 0x1.555492p-3f);
    p = __fmaf_rn(p, r, 0x1.fffffcp-2f);
    p = __fmaf_rn(p, r, 1.0f);
    p = __fmaf_rn(p, r, 1.0f);
    return __fmul_rn(p, __uint_as_float((__float_as_uint(shifted) << 23) + (127u << 23)));
}

/* 0 > g ? 0 : g of the reference: -0 and NaN stay. By bits, since a compiler makes a max of it, which orders +0 above
 * -0. */
__device__ __forceinline__ float gpu_relu(float g)
{
    const uint32_t bits = __float_as_uint(g);
    return bits > 0x80000000u && bits <= 0xff800000u ? 0.0f : g;
}

/* base/exactmath.h's tanh_f32. */
__device__ __forceinline__ float gpu_tanh(float x)
{
    return __fsub_rn(1.0f, __fdiv_rn(2.0f, __fadd_rn(gpu_exp(__fadd_rn(x, x)), 1.0f)));
}

/* As kernels.h's softcap; inverse: 1 / cap. */
__device__ __forceinline__ float gpu_softcap(float x, float cap, float inverse)
{
    return __fmul_rn(cap, gpu_tanh(__fmul_rn(x, inverse)));
}

/* As `activate`. */
__device__ __forceinline__ float gpu_gelu(float g)
{
    const float x = __fmul_rn(__fmul_rn(GELU_SCALE, g), __fmaf_rn(__fmul_rn(GELU_CUBE, g), g, 1.0f));
    return __fmul_rn(__fmul_rn(0.5f, g), __fadd_rn(1.0f, gpu_tanh(x)));
}

/* g sigmoid(slope g), as `activate` divides. */
__device__ __forceinline__ float gpu_swish(float g, float slope)
{
    return __fdiv_rn(g, __fadd_rn(1.0f, gpu_exp(-__fmul_rn(slope, g))));
}

/* NaN stays. */
__device__ __forceinline__ float gpu_below_limit(float x) { return SWIGLU_LIMIT < x ? SWIGLU_LIMIT : x; }

/* What the gate, or up where there is none, becomes. */
__device__ __forceinline__ float gpu_activation_of(enum activation a, float g)
{
    switch (a) {
    case ACT_SILU: return gpu_swish(g, 1.0f);
    case ACT_GELU: return gpu_gelu(g);
    case ACT_SWIGLU_CLAMPED: return gpu_swish(gpu_below_limit(g), SWIGLU_SLOPE);
    case ACT_RELU2: return __fmul_rn(gpu_relu(g), gpu_relu(g));
    default: return gpu_relu(g);
    }
}

/* What that is multiplied with. */
__device__ __forceinline__ float gpu_beside_gate(enum activation a, float up)
{
    if (a == ACT_SWIGLU_CLAMPED)
        return __fadd_rn(gpu_below_limit(-SWIGLU_LIMIT > up ? -SWIGLU_LIMIT : up), 1.0f);
    return a == ACT_DRELU ? gpu_relu(up) : up;
}

/* The value of a neuron, as `activate` has it. */
__device__ __forceinline__ float gpu_activation(enum activation a, bool has_gate, float gate, float up)
{
    const float v = gpu_activation_of(a, has_gate ? gate : up);
    return has_gate ? __fmul_rn(v, gpu_beside_gate(a, up)) : v;
}

/* A segment's sum in units of 2^-30, rounded to nearest even: llrint(s * 2^30) in 32-bit arithmetic. What is no number,
 * or not below 2^31, sets *broken and is 0. */
__device__ __forceinline__ long long gpu_units(float s, bool *broken)
{
    if (!(fabsf(s) < 0x1p31f)) {
        *broken = true;
        return 0;
    }
    const int high = __float2int_rn(s);
    const int low = __float2int_rn(__fmul_rn(__fsub_rn(s, __int2float_rn(high)), 0x1p30f));
    return (long long)high * (1ll << 30) + low;
}

/* ---- lanes: every lane of the warp takes part, every lane gets the result ---- */

/* Of numbers: what a NaN gives is not said. */
__device__ __forceinline__ float warp_max(float v)
{
    for (int i = LANES / 2; i > 0; i /= 2) {
        const float other = __shfl_xor_sync(FULL_MASK, v, i);
        v = other > v ? other : v;
    }
    return v;
}

/* ---- faults ---- */

__device__ __forceinline__ bool gpu_is_number(float x) { return (__float_as_uint(x) & 0x7fffffffu) < 0x7f800000u; }

/* Notes that value `index` of this operation is no number. */
__device__ __forceinline__ void gpu_note(struct gpu_fault fault, uint32_t index)
{
    if (!fault.first)
        return;
    atomicMin(fault.first, (unsigned long long)fault.order << 32 | index);
}

/* ---- memory ---- */

/* Asks for a line that will be read. */
__device__ __forceinline__ void gpu_prefetch(const void *p)
{
#ifdef __CUDA_ARCH__
    asm volatile("prefetch.global.L2 [%0];" ::"l"(p));
#else
    (void)p;
#endif
}

/* Brings a T of 4, 8 or 16 bytes into shared memory while the thread goes on (before sm_80: at once). `from` does not
 * change during the launch. */
template <class T> __device__ __forceinline__ void gpu_bring(T *shared, const T *from)
{
#if defined(HEARTH_SIMT)
    simt_copy_begin(shared, from, sizeof(T));
#elif __CUDA_ARCH__ >= 800
    const uint32_t to = (uint32_t)__cvta_generic_to_shared(shared);
    if (sizeof(T) == 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
    else if (sizeof(T) == 8)
        asm volatile("cp.async.ca.shared.global [%0], [%1], 8;" ::"r"(to), "l"(from) : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(to), "l"(from) : "memory");
#else
    *shared = __ldg(from);
#endif
}

/* Waits for all that this thread has brought; the block's others see it after a barrier. */
__device__ __forceinline__ void gpu_brought(void)
{
#if defined(HEARTH_SIMT)
    simt_copy_group();
    simt_copy_wait(0);
#elif __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}

/* What this thread has brought since the last call, which may be nothing, is a batch. */
__device__ __forceinline__ void gpu_bring_batch(void)
{
#if defined(HEARTH_SIMT)
    simt_copy_group();
#elif __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

/* Waits for all batches of this thread but the last N. */
template <int N> __device__ __forceinline__ void gpu_brought_but(void)
{
#if defined(HEARTH_SIMT)
    simt_copy_wait(N);
#elif __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
#endif
}

/* The share of one thread of so many. */
__device__ __forceinline__ void gpu_clear(const struct gpu_clearing &c, int64_t thread, int64_t threads)
{
    for (int64_t i = thread; i < c.n_units; i += threads)
        c.sums.units[i] = 0;
    for (int64_t i = thread; i < c.n_broken; i += threads)
        c.sums.broken[i] = 0;
    for (int64_t i = thread; i < c.n_h; i += threads)
        c.h[i] = 0;
}

/* Every thread of a launch, whose grid has no depth, calls it. */
__device__ __forceinline__ void gpu_clear(const struct gpu_clearing &c)
{
    gpu_clear(c, ((int64_t)blockIdx.y * gridDim.x + blockIdx.x) * blockDim.x + threadIdx.x,
              (int64_t)gridDim.x * gridDim.y * blockDim.x);
}

/* ---- tensor cores ---- */

/* c += A B of a tile m16n8k32, A u8 or s8 by rows, B s8 by columns; where a lane's parts lie is the PTX manual's
 * (mma.m16n8k32, integers). All lanes of a warp take part; from sm_80. */
template <bool A_SIGNED>
__device__ __forceinline__ void mma_m16n8k32(int c[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0,
                                             uint32_t b1)
{
#if defined(HEARTH_SIMT)
    const unsigned a[4] = {a0, a1, a2, a3}, b[2] = {b0, b1};
    simt_mma_m16n8k32(c, a, b, A_SIGNED);
#elif __CUDA_ARCH__ >= 800
    if (A_SIGNED)
        asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 "
            "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
            : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
            : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
    else
        asm("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 "
            "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
            : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
            : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
#else
    __trap();
#endif
}

#endif
