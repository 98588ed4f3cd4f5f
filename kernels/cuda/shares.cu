/* Tokens by the experts that they have chosen, and what is done with a value of a share at a time. */
#include "kernels/cuda/shares.cuh"
#include "kernels/cuda/stream.cuh"

namespace {

enum { SORTERS = 512, THREADS = 128 };

/* ---- which tokens ---- */

struct sorting {
    struct gpu_shares s;
    struct gpu_routes routes;
    int n, used, n_weights, n_experts;
    bool weighs_shared, dense;
    struct gpu_counts *counts;
};

/* The sum of what the threads before this one have; *all: of all of them. Every thread of the block comes. */
__device__ __forceinline__ uint32_t sum_before(uint32_t n, uint32_t *all)
{
    __shared__ uint32_t sums[SORTERS / LANES];
    const int lane = (int)threadIdx.x % LANES, warp = (int)threadIdx.x / LANES;
    uint32_t sum = n, before = 0;
    for (int i = 1; i < LANES; i *= 2) {
        const uint32_t other = __shfl_sync(FULL_MASK, sum, (lane - i) & (LANES - 1));
        sum += lane >= i ? other : 0;
    }
    __syncthreads(); /* what lay there has been read */
    if (lane == LANES - 1)
        sums[warp] = sum;
    __syncthreads();
    *all = 0;
    for (int i = 0; i < SORTERS / LANES; i++) {
        before += i < warp ? sums[i] : 0;
        *all += sums[i];
    }
    return before + sum - n;
}

/* end[e] = where the list of expert e begins, from how many have chosen each. */
__device__ __forceinline__ void place_lists(const struct sorting &p, const uint32_t *count, uint32_t *end)
{
    uint32_t before = 0, all;
    for (int first = 0; first < p.n_experts; first += SORTERS) {
        const int e = first + (int)threadIdx.x;
        const uint32_t at = sum_before(e < p.n_experts ? count[e] : 0, &all);
        if (e < p.n_experts)
            end[e] = before + at;
        before += all;
    }
    __syncthreads();
}

/* Tokens into the lists, within one in any order; end[e] then is the list's end. */
__device__ __forceinline__ void fill_lists(const struct sorting &p, uint32_t *end)
{
    const int pairs = p.n * p.used;
    for (int i = (int)threadIdx.x; i < pairs; i += SORTERS) {
        const uint32_t at = atomicAdd(&end[p.routes.expert[i]], 1u);
        p.s.token[at] = (uint32_t)(i / p.used);
        p.s.weight[at] = p.routes.weight[i / p.used * p.n_weights + i % p.used];
    }
    for (int t = (int)threadIdx.x; t < p.n; t += SORTERS)
        p.s.weight[pairs + t] = p.weighs_shared ? p.routes.weight[t * p.n_weights + p.used] : 1.0f;
    __syncthreads();
}

/* Room for so many activations: floats that are read by fours, and blocks, begin where those do. */
__device__ __forceinline__ uint32_t whole_blocks(uint32_t slots)
{
    return (slots + ACT_BLOCK - 1) / ACT_BLOCK * ACT_BLOCK;
}

/* The shares that there are, side by side; a thread has a set. */
__device__ __forceinline__ void make_shares(const struct sorting &p, const uint32_t *count, const uint32_t *end)
{
    uint32_t shares = 0, neurons = 0, slots = 0, all_shares, all_neurons, all_slots;
    for (int first = 0; first < p.s.n_sets; first += SORTERS) {
        const int i = first + (int)threadIdx.x;
        const struct gpu_set *set = &p.s.sets[i < p.s.n_sets ? i : 0];
        const int expert = set->expert;
        const bool routed = expert != GPU_ALL_TOKENS;
        const uint32_t n = i >= p.s.n_sets ? 0 : routed ? count[expert] : (uint32_t)p.n;
        const uint32_t at = shares + sum_before(n > 0, &all_shares);
        const uint32_t neuron = neurons + sum_before(n * (uint32_t)set->n, &all_neurons);
        const uint32_t slot = slots + sum_before(whole_blocks(n * (uint32_t)set->slots), &all_slots);
        shares += all_shares;
        neurons += all_neurons;
        slots += all_slots;
        if (!n)
            continue;
        p.s.of[at] = {i, n, routed ? end[expert] - n : (uint32_t)(p.n * p.used), !routed || p.n == 1, neuron, slot};
        atomicAdd(&p.counts->bytes, (unsigned long long)set->bytes);
        atomicAdd(&p.counts->uses, 1ull);
    }
    if (threadIdx.x)
        return;
    *p.s.n = shares;
    p.counts->neurons += neurons;
    p.counts->flagged += p.dense ? neurons : 0;
    p.counts->live += p.dense ? neurons : 0;
}

__global__ void __launch_bounds__(SORTERS) sort_tokens(struct sorting p)
{
    SHARED_BYTES(shared);
    uint32_t *count = (uint32_t *)shared, *end = count + p.n_experts;
    gpu_begin();
    for (int e = (int)threadIdx.x; e < p.n_experts; e += SORTERS)
        count[e] = 0;
    __syncthreads();
    for (int i = (int)threadIdx.x; i < p.n * p.used; i += SORTERS)
        atomicAdd(&count[p.routes.expert[i]], 1u);
    __syncthreads();
    place_lists(p, count, end);
    fill_lists(p, end);
    make_shares(p, count, end);
}

/* ---- what they read ---- */

struct gathering {
    struct gpu_shares s;
    struct acts x, to;
    bool codes, floats;
};

/* Thread blocks: tokens of a share in strides, shares. */
__global__ void __launch_bounds__(THREADS) gather(struct gathering w)
{
    gpu_begin();
    struct gpu_share share;
    if (!share_at(w.s.of, w.s.n, (int)blockIdx.y, &share) || share.whole)
        return;
    const int64_t d = w.x.cols, blocks = d / ACT_BLOCK;
    for (uint32_t i = blockIdx.x; i < share.n; i += gridDim.x) {
        const int64_t to = share.first + i, from = w.s.token[to];
        for (int64_t k = threadIdx.x; k < d && w.floats; k += THREADS)
            w.to.f32[to * d + k] = w.x.f32[from * d + k];
        for (int64_t k = threadIdx.x; k < d / FOUR && w.codes; k += THREADS)
            ((int *)(w.to.codes + to * d))[k] = ((const int *)(w.x.codes + from * d))[k];
        for (int64_t k = threadIdx.x; k < blocks && w.codes; k += THREADS)
            *(int4 *)&w.to.blocks[to * blocks + k] = *(const int4 *)&w.x.blocks[from * blocks + k];
    }
}

/* ---- what neurons are ---- */

struct activating {
    struct gpu_shares s;
    enum activation activation;
    const float *gate, *up;
    struct acts h;
    struct gpu_clearing clearing;
};

/* Slot i of token t of a share. */
__device__ __forceinline__ float activation_at(const struct activating &w, const struct gpu_share &share,
                                               const struct gpu_set &set, int64_t t, int i)
{
    const int own = i >= set.slots ? -1 : set.column ? set.column[i] : i;
    const int64_t at = share.neurons + t * set.n + own;
    if (own < 0)
        return 0;
    const float v = gpu_activation(w.activation, w.up != NULL, w.gate[at], w.up ? w.up[at] : w.gate[at]);
    return __fmul_rn(v, w.s.weight[share.first + t]);
}

/* Thread blocks: slots, tokens of a share in strides, shares. A thread has four slots beside each other. */
__global__ void __launch_bounds__(THREADS) activate_shares(struct activating w)
{
    gpu_begin();
    const int64_t block = ((int64_t)blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    const int64_t blocks = (int64_t)gridDim.x * gridDim.y * gridDim.z;
    gpu_clear(w.clearing, block * THREADS + threadIdx.x, blocks * THREADS);
    struct gpu_share share;
    if (!share_at(w.s.of, w.s.n, (int)blockIdx.z, &share))
        return;
    const struct gpu_set &set = w.s.sets[share.set];
    const int first = FOUR * ((int)blockIdx.x * THREADS + (int)threadIdx.x), slots = set.slots;
    const bool quantised = set.quantised;
    for (int64_t t = blockIdx.y; t < share.n; t += gridDim.y) {
        const int64_t at = share.slots + t * slots + first;
        float v[FOUR];
        for (int k = 0; k < FOUR; k++) {
            v[k] = activation_at(w, share, set, t, first + k);
            if (first + k < slots)
                w.h.f32[at + k] = v[k];
        }
        if (quantised)
            quantise_four(w.h, at, v, first >= slots);
    }
}

/* How large activations are estimated: gates and ups are estimates. Thread blocks as in activate_shares, a thread has a
 * neuron. */
__global__ void __launch_bounds__(THREADS) estimate_products(struct gpu_shares s, enum activation a, float *gate,
                                                             const float *up)
{
    gpu_begin();
    struct gpu_share share;
    const int r = (int)(blockIdx.x * THREADS + threadIdx.x);
    if (!share_at(s.of, s.n, (int)blockIdx.z, &share) || r >= s.sets[share.set].n)
        return;
    const struct gpu_set &set = s.sets[share.set];
    const float gate_slope = set.gate_slope[r], gate_offset = set.gate_offset[r];
    const float up_slope = set.up_slope[r], up_offset = set.up_offset[r];
    for (int64_t t = blockIdx.y; t < share.n; t += gridDim.y) {
        const int64_t at = share.neurons + t * set.n + r;
        const float g = __fadd_rn(__fmul_rn(gate[at], gate_slope), gate_offset);
        const float u = __fadd_rn(__fmul_rn(up[at], up_slope), up_offset);
        gate[at] = fabsf(__fmul_rn(gpu_activation(a, true, g, u), s.weight[share.first + t]));
    }
}

}

void gpu_share_tokens(const struct gpu *g, const struct gpu_shares *s, const struct gpu_router *r,
                      const struct gpu_routes *routes, int64_t n, bool dense, struct gpu_counts *counts)
{
    const struct sorting p = {*s, *routes, (int)n, r->used, r->n_weights, r->n_experts, r->weighs_shared, dense,
                              counts};
    if (n > 0)
        LAUNCH(sort_tokens, 1u, SORTERS, (size_t)(2 * r->n_experts) * sizeof(uint32_t), g, p);
}

void gpu_gather(const struct gpu *g, const struct gpu_shares *s, const struct acts *x, int64_t n, bool codes,
                bool floats, const struct acts *to)
{
    const struct gathering w = {*s, *x, *to, codes, floats};
    if (n > 1 && s->most > 0)
        LAUNCH(gather, dim3(share_blocks(n), (unsigned)s->most), THREADS, 0, g, w);
}

void gpu_activate_shares(const struct gpu *g, const struct gpu_shares *s, enum activation a, const float *gate,
                         const float *up, int64_t n, const struct acts *h, const struct gpu_clearing *clearing)
{
    const struct activating w = {*s, a, gate, up, *h, *clearing};
    const unsigned blocks = (unsigned)((s->slots + FOUR * THREADS - 1) / (FOUR * THREADS));
    if (n > 0 && s->most > 0)
        LAUNCH(activate_shares, dim3(blocks, share_blocks(n), (unsigned)s->most), THREADS, 0, g, w);
}

void gpu_estimate_share_products(const struct gpu *g, const struct gpu_shares *s, enum activation a, float *gate,
                                 const float *up, int64_t n)
{
    const unsigned blocks = (unsigned)((s->rows + THREADS - 1) / THREADS);
    if (n > 0 && s->most > 0)
        LAUNCH(estimate_products, dim3(blocks, share_blocks(n), (unsigned)s->most), THREADS, 0, g, *s, a, gate, up);
}
