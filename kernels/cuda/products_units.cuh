/* How the lanes of a row bring their segments' units together. */
#ifndef HEARTH_KERNELS_CUDA_PRODUCTS_UNITS_CUH
#define HEARTH_KERNELS_CUDA_PRODUCTS_UNITS_CUH

#include "kernels/cuda/products.cuh"

namespace {

/* Sums in units of 2^-30 of a lane, for N tokens. Unsigned, so that those of broken tokens may wrap. */
template <int N> struct lane_sums {
    unsigned long long units[N];
    uint32_t broken; /* bit t: token t's */
};

template <int N> DEVICE void add_segment(struct lane_sums<N> &to, int t, float sum)
{
    bool broken = false;
    to.units[t] += (unsigned long long)gpu_units(sum, &broken);
    to.broken |= (uint32_t)broken << t;
}

/* Whose sums a token's are. Those of several shares are one token's, so they are added by atomic operations. */
DEVICE int64_t token_of(const struct product_work &w, int64_t token) { return w.token ? w.token[token] : token; }

/* What each warp found for the rows of a group. */
template <int N> struct warp_sums {
    unsigned long long units[READERS / LANES][N][ROW_GROUP];
};

/* Adds and writes what the warps found. All threads of the block call it, READERS or more. */
template <int N> DEVICE void write_sums(const struct product_work &w, int token, const struct warp_sums<N> &found)
{
    const int t = (int)threadIdx.x / ROW_GROUP, r = (int)threadIdx.x % ROW_GROUP, row = (int)blockIdx.x * ROW_GROUP + r;
    __syncthreads();
    if (t >= N || token + t >= w.n || row >= w.part[0].rows)
        return;
    long long *to = &w.to.units[token_of(w, token + t) * w.part[0].rows + row];
    unsigned long long sum = w.add && !w.shares.of ? (unsigned long long)*to : 0;
    for (int i = 0; i < READERS / LANES; i++)
        sum += found.units[i][t][r];
    if (w.shares.of)
        atomicAdd((unsigned long long *)to, sum);
    else
        *to = (long long)sum;
}

DEVICE void note_broken(const struct product_work &w, int token, bool broken)
{
    if (broken && token < w.n)
        atomicOr(&w.to.broken[token_of(w, token)], 1u);
}

/* Brings the lanes of each row together. All threads of the block call it. */
template <int N> DEVICE void give_sums(const struct product_work &w, int token, const struct lane_sums<N> &of)
{
    __shared__ struct warp_sums<N> found;
    const int thread = (int)threadIdx.x;
#pragma unroll
    for (int t = 0; t < N; t++) {
        const unsigned long long both = of.units[t] + __shfl_xor_sync(FULL_MASK, of.units[t], ROW_GROUP);
        if (thread % LANES < ROW_GROUP)
            found.units[thread / LANES][t][thread % ROW_GROUP] = both;
        note_broken(w, token + t, of.broken >> t & 1);
    }
    write_sums<N>(w, token, found);
}

}

#endif
