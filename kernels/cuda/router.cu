/* A router's choices: a warp has a token. Sums over its experts run in the lanes of softmax (kernels.h), everything
 * that has an order in one lane or, alike, in all. */
#include <float.h>

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/router.h"
#include "kernels/kernels.h"

namespace {

#define LEAST_SUM 0x1p-14f /* that weights are divided by */

struct choosing {
    struct gpu_router r;
    const float *logits;
    struct gpu_routes to;
    struct gpu_fault of_logits, of_scores;
};

/* Where a token's experts lie: what weights are made of, by what they are chosen, and the weights. */
struct room {
    float *of, *by, *weight;
};

__device__ __forceinline__ int lane_of() { return (int)threadIdx.x; }

/* kernels.h's softmax of what lies in shared memory. */
__device__ __forceinline__ void softmax(float *x, int n)
{
    float most = __int_as_float(0xff800000), sum = 0;
    for (int i = lane_of(); i < n; i += LANES)
        most = x[i] > most ? x[i] : most;
    most = warp_max(most);
    for (int i = lane_of(); i < n; i += LANES)
        x[i] = gpu_exp(__fadd_rn(x[i], -most));
    __syncwarp(FULL_MASK);
    for (int i = lane_of() % SUM_LANES; i < n; i += SUM_LANES)
        sum = __fadd_rn(sum, x[i]);
    for (int i = SUM_LANES / 2; i > 0; i /= 2)
        sum = __fadd_rn(sum, __shfl_xor_sync(FULL_MASK, sum, i));
    const float inverse = __fdiv_rn(1.0f, sum);
    for (int i = lane_of(); i < n; i += LANES)
        x[i] = __fmul_rn(x[i], inverse);
    __syncwarp(FULL_MASK);
}

__device__ __forceinline__ float sigmoid(float x) { return __fdiv_rn(1.0f, __fadd_rn(1.0f, gpu_exp(-x))); }

/* Notes what is no number among n values of the token's. Returns whether something is. */
__device__ __forceinline__ bool note_broken(const float *x, int n, struct gpu_fault fault, uint32_t first)
{
    bool broken = false;
    for (int i = lane_of(); i < n; i += LANES) {
        if (gpu_is_number(x[i]))
            continue;
        gpu_note(fault, first + (uint32_t)i);
        broken = true;
    }
    return __any_sync(FULL_MASK, broken);
}

/* What weights are made of, in place of logits. */
__device__ __forceinline__ void score(const struct gpu_router &r, float *logit)
{
    if (r.score == GPU_ROUTER_SOFTMAX)
        softmax(logit, r.n_experts);
    for (int i = lane_of(); r.score == GPU_ROUTER_SIGMOID && i < r.n_experts; i += LANES)
        logit[i] = sigmoid(logit[i]);
    __syncwarp(FULL_MASK);
}

/* The sum of the two largest of n values. */
__device__ __forceinline__ float best_two(const float *x, int n)
{
    float best = -INFINITY, second = -INFINITY;
    for (int i = 0; i < n; i++) {
        second = x[i] > best ? best : x[i] > second ? x[i] : second;
        best = x[i] > best ? x[i] : best;
    }
    return __fadd_rn(best, second);
}

/* How many of n values are larger than value g, or as large and before it. */
__device__ __forceinline__ int rank_of(const float *x, int n, int g)
{
    int rank = 0;
    for (int i = 0; i < n; i++)
        rank += x[i] > x[g] || (x[i] == x[g] && i < g);
    return rank;
}

/* Scores of experts in groups that do not count become the least that there are. best: room of a value a group. */
__device__ __forceinline__ void keep_groups(const struct gpu_router &r, float *by, float *best)
{
    const int of_group = r.n_experts / r.n_groups;
    for (int g = lane_of(); g < r.n_groups; g += LANES)
        best[g] = best_two(by + g * of_group, of_group);
    __syncwarp(FULL_MASK);
    for (int i = lane_of(); i < r.n_experts; i += LANES)
        if (rank_of(best, r.n_groups, i / of_group) >= r.groups_used)
            by[i] = -FLT_MAX;
    __syncwarp(FULL_MASK);
}

/* Which of n values is the largest; of equal ones the first. All lanes get it. */
__device__ __forceinline__ int largest(const float *x, int n)
{
    float most = -INFINITY;
    int at = n;
    for (int i = lane_of(); i < n; i += LANES) {
        at = x[i] > most || at == n ? i : at;
        most = x[at];
    }
    for (int i = LANES / 2; i > 0; i /= 2) {
        const float other = __shfl_xor_sync(FULL_MASK, most, i);
        const int other_at = __shfl_xor_sync(FULL_MASK, at, i);
        const bool better = other > most || (other == most && other_at < at);
        most = better ? other : most;
        at = better ? other_at : at;
    }
    return at;
}

/* The chosen experts, which are left out once they are: nothing that counts is as little as they become. */
__device__ __forceinline__ void choose_best(const struct gpu_router &r, const struct room &room, uint32_t *expert)
{
    for (int k = 0; k < r.used; k++) {
        const int e = largest(room.by, r.n_experts);
        __syncwarp(FULL_MASK);
        if (lane_of() == 0) {
            room.by[e] = -INFINITY;
            room.weight[k] = room.of[e];
            expert[k] = (uint32_t)e;
        }
        __syncwarp(FULL_MASK);
    }
}

/* Weights of the chosen, from what they are made of. */
__device__ __forceinline__ void weigh(const struct gpu_router &r, float *weight, float *to)
{
    float sum = 0;
    if (r.score == GPU_ROUTER_CHOSEN)
        softmax(weight, r.used);
    for (int k = 0; k < r.used; k++)
        sum = __fadd_rn(sum, weight[k]);
    sum = sum < LEAST_SUM ? LEAST_SUM : sum;
    for (int k = lane_of(); k < r.used; k += LANES) {
        const float of_sum = r.normed ? __fdiv_rn(weight[k], sum) : weight[k];
        to[k] = r.scale != 1 ? __fmul_rn(of_sum, r.scale) : of_sum;
    }
}

/* What a token has whose scores are no numbers. */
__device__ __forceinline__ void choose_any(const struct gpu_router &r, uint32_t *expert, float *weight)
{
    for (int k = lane_of(); k < r.used; k += LANES)
        expert[k] = (uint32_t)k;
    for (int k = lane_of(); k < r.n_weights; k += LANES)
        weight[k] = __uint_as_float(0x7fc00000u);
}

__global__ void __launch_bounds__(LANES) choose(struct choosing w)
{
    SHARED_BYTES(shared);
    const struct gpu_router &r = w.r;
    const int n = r.n_experts, n_logits = n + r.weighs_shared, token = (int)blockIdx.x;
    const struct room room = {(float *)shared, (float *)shared + n, (float *)shared + 2 * n};
    uint32_t *expert = w.to.expert + (int64_t)token * r.used;
    float *weight = w.to.weight + (int64_t)token * r.n_weights;
    gpu_begin();
    const float *logits = w.logits + (int64_t)token * n_logits;
    if (note_broken(logits, n_logits, w.of_logits, (uint32_t)(token * n_logits))) {
        choose_any(r, expert, weight);
        return;
    }
    for (int i = lane_of(); i < n; i += LANES)
        room.of[i] = logits[i];
    __syncwarp(FULL_MASK);
    score(r, room.of);
    for (int i = lane_of(); i < n; i += LANES)
        room.by[i] = r.choice_bias ? __fadd_rn(room.of[i], r.choice_bias[i]) : room.of[i];
    __syncwarp(FULL_MASK);
    if (note_broken(room.by, n, w.of_scores, (uint32_t)(token * n))) {
        choose_any(r, expert, weight);
        return;
    }
    if (r.groups_used < r.n_groups)
        keep_groups(r, room.by, room.weight);
    choose_best(r, room, expert);
    weigh(r, room.weight, weight);
    if (r.weighs_shared && lane_of() == 0)
        weight[r.used] = sigmoid(logits[n]);
}

}

void gpu_choose(const struct gpu *g, const struct gpu_router *r, const float *logits, int64_t n,
                const struct gpu_routes *to, struct gpu_fault of_logits, struct gpu_fault of_scores)
{
    const struct choosing w = {*r, logits, *to, of_logits, of_scores};
    const int beside = r->used > r->n_groups ? r->used : r->n_groups;
    if (n > 0)
        LAUNCH(choose, (unsigned)n, LANES, (size_t)(2 * r->n_experts + beside) * sizeof(float), g, w);
}
