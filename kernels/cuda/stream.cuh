/* What kernels over the residual stream share: quantising what a thread holds, and adding sums to it. */
#ifndef HEARTH_KERNELS_CUDA_STREAM_CUH
#define HEARTH_KERNELS_CUDA_STREAM_CUH

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/stream.h"

/* A thread has four values beside each other, so that eight threads have a block. */
enum { FOUR = 4, BLOCK_THREADS = ACT_BLOCK / FOUR, HALF_THREADS = BLOCK_THREADS / 2 };

/* Sums of a block's codes. */
struct code_sums {
    int low, all; /* of the first 16, as the block's first thread has it; of the 32 */
};

/* codes: this thread's four. Every lane of the warp takes part. */
__device__ __forceinline__ struct code_sums sum_codes(int codes)
{
    int half = __dp4a(codes, 0x01010101, 0);
    for (int i = 1; i < HALF_THREADS; i *= 2)
        half += __shfl_xor_sync(FULL_MASK, half, i);
    return {half, half + __shfl_xor_sync(FULL_MASK, half, HALF_THREADS)};
}

/* By the block's first thread. */
__device__ __forceinline__ void store_block(struct act_block *to, float scale, struct code_sums sum)
{
    const float scaled = __fmul_rn(scale, __int2float_rn(sum.all));
    *(int4 *)to = make_int4(__float_as_int(scale), __float_as_int(scaled), -sum.all, -sum.low);
}

/* The largest of |values| of a block, as bits: in this order NaN and infinity are above all numbers. */
__device__ __forceinline__ uint32_t largest_bits(const float v[FOUR])
{
    uint32_t most = 0;
    for (int k = 0; k < FOUR; k++) {
        const uint32_t bits = __float_as_uint(v[k]) & 0x7fffffffu;
        most = bits > most ? bits : most;
    }
    for (int i = 1; i < BLOCK_THREADS; i *= 2) {
        const uint32_t other = __shfl_xor_sync(FULL_MASK, most, i);
        most = other > most ? other : most;
    }
    return most;
}

/* A thread's four values as kernels.h's quantize makes them, and what it makes of their block. */
struct quantised {
    uint32_t codes;
    float scale;
    struct code_sums sum;
};

/* Every lane of the warp takes part: eight threads beside each other have a block. */
__device__ __forceinline__ struct quantised quantised_of(const float v[FOUR])
{
    const uint32_t most = largest_bits(v);
    const bool broken = most >= 0x7f800000u;
    const float amax = __uint_as_float(most);
    const float inverse = amax >= 1e-30f ? __fdiv_rn(127.0f, amax) : 0.0f;
    uint32_t whole[FOUR];
    for (int k = 0; k < FOUR; k++)
        whole[k] = (uint32_t)__float2int_rn(__fmul_rn(v[k], inverse));
    if (broken)
        for (int k = 0; k < FOUR; k++)
            whole[k] = gpu_is_number(v[k]) ? 0 : 127;
    const uint32_t codes = __byte_perm(__byte_perm(whole[0], whole[1], 0x0040),
                                       __byte_perm(whole[2], whole[3], 0x0040), 0x5410);
    return {codes, broken ? __uint_as_float(0x7fc00000u) : __fdiv_rn(amax, 127.0f), sum_codes((int)codes)};
}

/* Values first, first + 1, ... of `a` become codes; first is the first of this thread's four. Those with `none` store
 * nothing. */
__device__ __forceinline__ void quantise_four(const struct acts &a, int64_t first, const float v[FOUR], bool none)
{
    const struct quantised q = quantised_of(v);
    if (none)
        return;
    *(uint32_t *)(a.codes + first) = q.codes;
    if (threadIdx.x % BLOCK_THREADS == 0)
        store_block(&a.blocks[first / ACT_BLOCK], q.scale, q.sum);
}

/* The launch adds sums to x. */
struct adding {
    const long long *units;
    const uint32_t *broken;
    struct gpu_addition a;
    float *x;
    struct gpu_fault fault;
};

/* Units as f32, rounded once; of a broken token the first is no number. */
__device__ __forceinline__ float sum_of_units(long long units, bool broken)
{
    return broken ? __uint_as_float(0x7fc00000u) : __fmul_rn(__ll2float_rn(units), 0x1p-30f);
}

/* What becomes of x[i]: its sum and bias are added, then what has waited. Notes what is no number before that. */
__device__ __forceinline__ float added(const struct adding &w, int64_t i, float x, float sum, float bias, float y)
{
    const float value = __fmul_rn(w.a.bias ? __fadd_rn(sum, bias) : sum, w.a.scale); /* times 1 changes nothing */
    const float to = w.a.waits ? value : __fadd_rn(x, value);
    if (!gpu_is_number(to))
        gpu_note(w.fault, (uint32_t)i);
    return w.a.y && !w.a.waits ? __fadd_rn(to, y) : to;
}

/* gpu_add of what is normed. */
void add_normed(const struct gpu *g, const struct adding &w, int64_t n, int64_t d);

#endif
