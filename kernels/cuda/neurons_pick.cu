/* Which neurons fire: estimates become pairs of a neuron and a token; and what is done with a value at a time. */
#include "kernels/cuda/neurons.h"
#include "kernels/cuda/shares.cuh"
#include "kernels/cuda/stream.cuh"

namespace {

enum {
    THREADS = 256,
    FEW_THREADS = 128, /* where one token must reach many multiprocessors */
    MASK_TOKENS = 32,  /* tokens whose decisions a lane keeps as bits */
    ONE_THREADS = 1024, ONE_ROWS = 16 /* of the thread block that picks for one token, of each of its threads */
};

unsigned blocks_of(int64_t threads) { return (unsigned)((threads + THREADS - 1) / THREADS); }

/* Decisions of a launch. */
struct picking {
    const float *value;
    int64_t stride;
    int rows, n;
    float bound;
    const float *bound_of;
    bool keep;
    struct gpu_pairs to;
    struct gpu_counts *counts;
    struct gpu_clearing clearing;
    /* Of a launch for shares: */
    struct gpu_shares shares;
    bool by_bound;
    float *h;
};

/* The tokens [t0, ...) for which row r fires. */
__device__ __forceinline__ unsigned decide(const struct picking &p, int r, int t0)
{
    const float limit = p.bound_of ? p.bound_of[r] : p.bound;
    unsigned fires = 0;
    for (int i = 0; i < MASK_TOKENS && t0 + i < p.n; i++)
        fires |= (unsigned)!(p.value[(t0 + i) * p.stride + r] <= limit) << i;
    return fires;
}

/* The sum of the lanes before this one; *all: of all of them. */
__device__ __forceinline__ int sum_before(int n, int *all)
{
    const int lane = threadIdx.x % LANES;
    int sum = n;
#pragma unroll
    for (int d = 1; d < LANES; d *= 2) {
        const int other = __shfl_sync(FULL_MASK, sum, (lane - d) & (LANES - 1));
        sum += lane >= d ? other : 0;
    }
    *all = __shfl_sync(FULL_MASK, sum, LANES - 1);
    return sum - n;
}

/* The launch's decisions become those of share blockIdx.z, whose activations are cleared. False: there is none. */
__device__ __forceinline__ bool take_share(struct picking &p)
{
    const int64_t blocks = (int64_t)gridDim.x * gridDim.y, block = (int64_t)blockIdx.y * gridDim.x + blockIdx.x;
    struct gpu_share s;
    gpu_clear(p.clearing, (blockIdx.z * blocks + block) * THREADS + threadIdx.x, gridDim.z * blocks * THREADS);
    if (!share_at(p.shares.of, p.shares.n, (int)blockIdx.z, &s))
        return false;
    const struct gpu_set &set = p.shares.sets[s.set];
    for (int64_t i = block * THREADS + threadIdx.x; i < (int64_t)s.n * set.slots; i += blocks * THREADS)
        p.h[s.slots + i] = 0;
    p.value += s.neurons;
    p.stride = p.rows = set.n;
    p.n = (int)s.n;
    p.bound_of = p.by_bound ? set.bound : NULL;
    return true;
}

/* A lane is a row, whose pairs follow each other: they read one row. A warp asks once for the room of its pairs. */
template <bool SHARES> __global__ void __launch_bounds__(THREADS) pick(struct picking p)
{
    gpu_begin();
    if (SHARES && !take_share(p))
        return;
    const int r = (int)(blockIdx.x * THREADS + threadIdx.x), t0 = (int)blockIdx.y * MASK_TOKENS;
    unsigned fires = r < p.rows ? decide(p, r, t0) : 0;
    int all, at = sum_before(__popc(fires), &all);
    unsigned begin = 0;
    if (!SHARES)
        gpu_clear(p.clearing);
    if (!all)
        return;
    if (threadIdx.x % LANES == 0) {
        begin = atomicAdd(p.to.n, (unsigned)all);
        if (p.counts)
            atomicAdd(&p.counts->flagged, (unsigned long long)all);
    }
    for (at += (int)__shfl_sync(FULL_MASK, begin, 0); fires; fires &= fires - 1, at++) {
        const int t = t0 + __ffs((int)fires) - 1;
        p.to.row[at] = r;
        p.to.token[at] = t;
        if (SHARES)
            p.to.share[at] = (int32_t)blockIdx.z;
        if (p.keep)
            p.to.gate[at] = p.value[t * p.stride + r];
    }
}

/* One token's, by one thread block: no other must have counted before. Those beside it clear. A warp has rows that
 * follow each other, 32 at a time, and what it finds of them goes side by side into the lists. */
__global__ void __launch_bounds__(ONE_THREADS) pick_for_one(struct picking p)
{
    __shared__ int of_warp[ONE_THREADS / LANES];
    const int lane = threadIdx.x % LANES, warp = threadIdx.x / LANES, turns = (p.rows + ONE_THREADS - 1) / ONE_THREADS;
    const int first = warp * turns * LANES + lane;
    float value[ONE_ROWS];
    unsigned fires = 0; /* bit i: the lane's row of turn i */
    int found = 0, all;
    for (int i = 0; i < turns && p.bound_of && !blockIdx.x; i++)
        if (lane == 0 && first + i * LANES < p.rows)
            gpu_prefetch(p.bound_of + first + i * LANES);
    gpu_begin();
    if (blockIdx.x) {
        gpu_clear(p.clearing, (int64_t)(blockIdx.x - 1) * ONE_THREADS + threadIdx.x,
                  (int64_t)(gridDim.x - 1) * ONE_THREADS);
        return;
    }
#pragma unroll
    for (int i = 0; i < ONE_ROWS; i++) {
        const int r = first + i * LANES;
        value[i] = i < turns && r < p.rows ? p.value[r] : 0;
    }
#pragma unroll
    for (int i = 0; i < ONE_ROWS; i++) {
        const int r = first + i * LANES;
        fires |= (unsigned)(i < turns && r < p.rows && !(value[i] <= (p.bound_of ? p.bound_of[r] : p.bound))) << i;
    }
#pragma unroll
    for (int i = 0; i < ONE_ROWS; i++)
        found += __popc(__ballot_sync(FULL_MASK, fires >> i & 1));
    if (lane == 0)
        of_warp[warp] = found;
    __syncthreads();
    const int before = sum_before(of_warp[lane], &all);
    int at = __shfl_sync(FULL_MASK, before, warp);
#pragma unroll
    for (int i = 0; i < ONE_ROWS; i++) {
        const unsigned live = __ballot_sync(FULL_MASK, fires >> i & 1);
        const int place = at + __popc(live & ((1u << lane) - 1));
        if (fires >> i & 1) {
            p.to.row[place] = first + i * LANES;
            if (p.keep)
                p.to.gate[place] = value[i];
        }
        at += __popc(live);
    }
    for (int i = threadIdx.x; i < all; i += ONE_THREADS)
        p.to.token[i] = 0;
    if (threadIdx.x == 0) {
        *p.to.n = (uint32_t)all;
        if (p.counts)
            atomicAdd(&p.counts->flagged, (unsigned long long)all);
    }
}

struct lines {
    const float *gate_slope, *gate_offset, *up_slope, *up_offset;
};

__global__ void __launch_bounds__(THREADS) estimate_products(enum activation a, float *gate, const float *up,
                                                             int64_t stride, int rows, struct lines l)
{
    const int r = (int)(blockIdx.x * THREADS + threadIdx.x), of = r < rows ? r : 0;
    const int64_t at = blockIdx.y * stride + r;
    const float gate_slope = l.gate_slope[of], gate_offset = l.gate_offset[of];
    const float up_slope = l.up_slope[of], up_offset = l.up_offset[of];
    gpu_begin();
    if (r >= rows)
        return;
    const float g = __fadd_rn(__fmul_rn(gate[at], gate_slope), gate_offset);
    const float u = __fadd_rn(__fmul_rn(up[at], up_slope), up_offset);
    gate[at] = fabsf(gpu_activation(a, true, g, u));
}

__global__ void __launch_bounds__(THREADS) activate_all(enum activation a, const float *gate, const float *up,
                                                        int64_t stride, int rows, const int32_t *slot, float *h,
                                                        int64_t h_stride, struct gpu_clearing clearing)
{
    const int r = (int)(blockIdx.x * THREADS + threadIdx.x), to = slot && r < rows ? slot[r] : r;
    const int64_t at = blockIdx.y * stride + r;
    gpu_begin();
    gpu_clear(clearing);
    if (r < rows)
        h[blockIdx.y * h_stride + to] = gpu_activation(a, gate != NULL, gate ? gate[at] : 0, up[at]);
}

/* The same of rows that are h's columns, and their codes: a thread has four. */
__global__ void __launch_bounds__(FEW_THREADS) activate_codes(enum activation a, const float *gate, const float *up,
                                                              int64_t stride, struct acts h,
                                                              struct gpu_clearing clearing)
{
    gpu_begin();
    const int64_t r = FOUR * ((int64_t)blockIdx.x * FEW_THREADS + threadIdx.x);
    const int64_t from = blockIdx.y * stride + r, to = blockIdx.y * h.cols + r;
    const bool none = r >= h.cols;
    float4 g = make_float4(0, 0, 0, 0), u = g;
    if (!none)
        u = *(const float4 *)(up + from);
    if (gate && !none)
        g = *(const float4 *)(gate + from);
    gpu_clear(clearing);
    const float v[FOUR] = {gpu_activation(a, gate != NULL, g.x, u.x), gpu_activation(a, gate != NULL, g.y, u.y),
                           gpu_activation(a, gate != NULL, g.z, u.z), gpu_activation(a, gate != NULL, g.w, u.w)};
    if (!none)
        *(float4 *)(h.f32 + to) = make_float4(v[0], v[1], v[2], v[3]);
    quantise_four(h, to, v, none);
}

/* The token of pair i: the last one that begins at or before it. */
__device__ __forceinline__ int token_of(const uint32_t *first, int n, uint32_t i)
{
    int low = 0;
    for (int high = n; high - low > 1;) {
        const int middle = (low + high) / 2;
        if (first[middle] <= i)
            low = middle;
        else
            high = middle;
    }
    return low;
}

__global__ void __launch_bounds__(THREADS) place_live(const uint32_t *first, const uint32_t *index, const float *value,
                                                      int n, int64_t n_pairs, const int32_t *slot, float *h,
                                                      int64_t h_stride)
{
    gpu_begin();
    const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i < n_pairs)
        h[token_of(first, n, (uint32_t)i) * h_stride + slot[index[i]]] = value[i];
}

}

void gpu_pick(const struct gpu *g, const float *value, int64_t stride, int64_t rows, int64_t n, float bound,
              const float *bound_of, bool keep, const struct gpu_pairs *to, struct gpu_counts *counts,
              const struct gpu_clearing *clearing)
{
    const struct picking p = {value, stride, (int)rows, (int)n, bound, bound_of, keep, *to, counts, *clearing, {},
                              false, NULL};
    if (n == 1 && rows > 0 && rows <= ONE_THREADS * ONE_ROWS) {
        const int64_t cleared = clearing->n_units + clearing->n_broken + clearing->n_h;
        LAUNCH(pick_for_one, 1 + (unsigned)((cleared + ONE_THREADS - 1) / ONE_THREADS), ONE_THREADS, 0, g, p);
        return;
    }
    cudaMemsetAsync(to->n, 0, sizeof *to->n, g->stream);
    LAUNCH(pick<false>, dim3(blocks_of(rows > 0 ? rows : 1), (unsigned)((n + MASK_TOKENS - 1) / MASK_TOKENS)), THREADS,
           0, g, p);
}

void gpu_pick_shares(const struct gpu *g, const struct gpu_shares *s, const float *value, int64_t n, float bound,
                     bool by_bound, bool keep, const struct gpu_pairs *to, struct gpu_counts *counts, float *h,
                     const struct gpu_clearing *clearing)
{
    const struct picking p = {value, 0, 0, 0, bound, NULL, keep, *to, counts, *clearing, *s, by_bound, h};
    const dim3 grid(blocks_of(s->rows), (unsigned)((n + MASK_TOKENS - 1) / MASK_TOKENS), (unsigned)s->most);
    if (!n || !s->most)
        return;
    cudaMemsetAsync(to->n, 0, sizeof *to->n, g->stream);
    LAUNCH(pick<true>, grid, THREADS, 0, g, p);
}

void gpu_estimate_products(const struct gpu *g, enum activation a, float *gate, const float *up, int64_t stride,
                           int64_t rows, int64_t n, const float *gate_slope, const float *gate_offset,
                           const float *up_slope, const float *up_offset)
{
    const struct lines l = {gate_slope, gate_offset, up_slope, up_offset};
    if (rows && n)
        LAUNCH(estimate_products, dim3(blocks_of(rows), (unsigned)n), THREADS, 0, g, a, gate, up, stride,
               (int)rows, l);
}

void gpu_activate(const struct gpu *g, enum activation a, const float *gate, const float *up, int64_t stride,
                  int64_t rows, int64_t n, const int32_t *slot, const struct acts *h, bool quantise,
                  const struct gpu_clearing *clearing)
{
    if (quantise && !slot && rows == h->cols && stride % FOUR == 0) {
        const int64_t blocks = (rows / FOUR + FEW_THREADS - 1) / FEW_THREADS;
        LAUNCH(activate_codes, dim3((unsigned)blocks, (unsigned)n), FEW_THREADS, 0, g, a, gate, up, stride, *h,
               *clearing);
        return;
    }
    LAUNCH(activate_all, dim3(blocks_of(rows > 0 ? rows : 1), (unsigned)n), THREADS, 0, g, a, gate, up, stride,
           (int)rows, slot, h->f32, h->cols, *clearing);
    if (quantise)
        gpu_quantize(g, h, n);
}

void gpu_place_live(const struct gpu *g, const uint32_t *first, const uint32_t *index, const float *value, int64_t n,
                    int64_t n_pairs, const int32_t *slot, float *h, int64_t h_stride)
{
    if (n_pairs)
        LAUNCH(place_live, blocks_of(n_pairs), THREADS, 0, g, first, index, value, (int)n, n_pairs, slot, h,
               h_stride);
}
