/* Attention by segments: those of a piece are spread over thread blocks, in two launches, since weights want the
 * largest score of all: scores; weights, and what each segment gives. The last thread block adds the segments up. */
#include <math.h>

#include "kernels/cuda/attention_parts.cuh"

/* Of this thread block's piece: how many of its segments' blocks are done. */
static __device__ __forceinline__ unsigned *blocks_done(const struct attending &a)
{
    return a.done + blockIdx.z * a.pieces + blockIdx.y;
}

template <int R>
static __device__ __forceinline__ void score_one(const struct attending &a, const struct piece &p, int segment,
                                                 uint4 *stage, float *q)
{
    const int first = threadIdx.x / LANES * R;
    float most[R];
#pragma unroll
    for (int r = 0; r < R; r++)
        most[r] = -INFINITY;
    stage_queries(a, p, WARPS * R, q);
    score_segment<R>(a, p, segment, stage, q, most);
#pragma unroll
    for (int r = 0; r < R; r++) {
        const float all = warp_max(most[r]);
        const int64_t slot = slot_of(a, row_of(a, p, first + r), segment);
        if (threadIdx.x % LANES == 0 && first + r < p.rows && slot >= 0)
            a.most[slot] = all;
    }
}

template <int MOST>
static __global__ void __launch_bounds__(ATTEND_THREADS, MOST > FEW ? 2 : 4) score_segments(struct attending a)
{
    gpu_begin();
    SHARED_BYTES(shared);
    uint4 *stage = (uint4 *)shared;
    float *q = (float *)(shared + a.staged);
    struct piece p;
    if (!find_piece(a, &p))
        return;
    const int segment = p.begin / ATTN_SEGMENT + blockIdx.x;
    if (segment * ATTN_SEGMENT >= p.end)
        return;
    if (blockIdx.x == 0 && threadIdx.x == 0)
        *blocks_done(a) = 0;
    with_rows<MOST>(p.rows, WARPS, [&](auto each) { score_one<each.rows>(a, p, segment, stage, q); });
}

static __device__ __forceinline__ int slots_of(const struct row &row)
{
    return (row.end - 1) / ATTN_SEGMENT - row.begin / ATTN_SEGMENT + 1;
}

/* The largest of the scores of a row, of a query head, found by a warp. */
static __device__ __forceinline__ float largest_score(const struct attending &a, const struct row &row, int head)
{
    const int slots = slots_of(row);
    const float *of = a.most + row.at * a.slots;
    float most = -INFINITY;
    for (int i = threadIdx.x % LANES; i < slots; i += LANES)
        most = fmaxf(most, of[i]);
    return largest_of(a, head, warp_max(most));
}

/* The weights of a row in a segment, into w; their sums, into a.sums. */
static __device__ __forceinline__ void weigh_slot(const struct attending &a, const struct row &row, int head,
                                                  int segment, float *w)
{
    const int lane = threadIdx.x % LANES;
    const int64_t slot = slot_of(a, row, segment);
    const float sum = weigh_row(a, row, segment, [&] { return largest_score(a, row, head); }, w);
    if (lane < SUM_LANES && slot >= 0)
        a.sums[slot * SUM_LANES + lane] = sum;
}

/* Those of all rows. */
static __device__ __forceinline__ void weigh_slots(const struct attending &a, const struct piece &p, int segment,
                                                   int rows, float *w)
{
    for (int i = threadIdx.x / LANES; i < rows; i += WARPS) {
        if (i < p.rows)
            weigh_slot(a, row_of(a, p, i), head_of(p, i), segment, w + i * ATTN_SEGMENT);
        else
            weigh_none(w + i * ATTN_SEGMENT);
    }
}

/* Whether this thread block is the last of its piece: then it sees what the others have written. */
static __device__ __forceinline__ bool last_of(const struct attending &a, const struct piece &p, int *shared)
{
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        const int segments = (p.end - 1) / ATTN_SEGMENT - p.begin / ATTN_SEGMENT + 1;
        *shared = (int)atomicAdd(blocks_done(a), 1u) == segments - 1;
    }
    __syncthreads();
    __threadfence();
    return *shared;
}

/* 1 / the sum of a row's weights, which a warp finds. */
static __device__ __forceinline__ float inverse_of_row(const struct attending &a, const struct row &row, int head)
{
    const float *sums = a.sums + row.at * a.slots * SUM_LANES + threadIdx.x % SUM_LANES;
    const int slots = slots_of(row);
    float sum = 0;
#pragma unroll 8
    for (int i = 0; i < slots; i++)
        sum = __fadd_rn(sum, __ldcg(sums + i * SUM_LANES));
    return inverse_of(sum, a.sinks ? rest_of(a, head, largest_score(a, row, head)) : 0.0f);
}

/* Adds a thread's four values of the segments, in ascending order. */
static __device__ __forceinline__ void add_slots(const struct attending &a, const struct row &row,
                                                 const struct mixing &x, float (&total)[FOUR])
{
    const float4 *part = (const float4 *)(a.parts + row.at * a.slots * a.value) + x.lane;
    const int slots = slots_of(row);
#pragma unroll 8
    for (int i = 0; i < slots; i++) {
        const float4 four = __ldcg(part + i * x.lanes);
        total[0] = __fadd_rn(total[0], four.x);
        total[1] = __fadd_rn(total[1], four.y);
        total[2] = __fadd_rn(total[2], four.z);
        total[3] = __fadd_rn(total[3], four.w);
    }
}

/* Adds up the segments; inverse [rows] and out [rows, value] are shared. */
template <int M>
static __device__ __forceinline__ void merge_segments(const struct attending &a, const struct piece &p, float *inverse,
                                                      float4 *out)
{
    const struct mixing x = mixing_of<M>(a);
    for (int i = threadIdx.x / LANES; i < p.rows; i += WARPS) {
        const float all = inverse_of_row(a, row_of(a, p, i), head_of(p, i));
        if (threadIdx.x % LANES == 0)
            inverse[i] = all;
    }
    float total[M][FOUR] = {};
#pragma unroll
    for (int m = 0; m < M; m++)
        if (x.row + m < p.rows)
            add_slots(a, row_of(a, p, x.row + m), x, total[m]);
    __syncthreads();
    finish_rows<M>(a, p, total, inverse, out);
}

template <int M>
static __device__ __forceinline__ void mix_one(const struct attending &a, const struct piece &p, int segment,
                                               uint4 *stage, float *w)
{
    const struct mixing x = mixing_of<M>(a);
    float part[M][FOUR] = {};
    mix_segment<M>(a, p, segment, stage, w, [&] { weigh_slots(a, p, segment, weighed_rows(p, M), w); }, part);
#pragma unroll
    for (int m = 0; m < M; m++) {
        const int64_t slot = slot_of(a, row_of(a, p, x.row + m), segment);
        if (x.row + m < p.rows && slot >= 0)
            ((float4 *)(a.parts + slot * a.value))[x.lane] = make_float4(part[m][0], part[m][1], part[m][2],
                                                                         part[m][3]);
    }
    if (last_of(a, p, (int *)stage)) {
        __syncthreads();
        merge_segments<M>(a, p, w, (float4 *)stage);
    }
}

template <int MOST>
static __global__ void __launch_bounds__(ATTEND_THREADS, MOST > FEW ? 2 : 3) mix_segments(struct attending a)
{
    gpu_begin();
    SHARED_BYTES(shared);
    uint4 *stage = (uint4 *)shared;
    float *w = (float *)(shared + a.staged);
    struct piece p;
    if (!find_piece(a, &p))
        return;
    const int segment = p.begin / ATTN_SEGMENT + blockIdx.x;
    if (segment * ATTN_SEGMENT >= p.end)
        return;
    with_rows<MOST>(p.rows, mix_groups(a.value), [&](auto each) { mix_one<each.rows>(a, p, segment, stage, w); });
}

template <int MOST> static void launch(const struct gpu *g, const struct attending &a, int segments)
{
    const dim3 grid(segments, a.pieces, a.n);
    LAUNCH(score_segments<MOST>, grid, dim3(ATTEND_THREADS), a.room, g, a);
    LAUNCH(mix_segments<MOST>, grid, dim3(ATTEND_THREADS), a.room, g, a);
}

void attend_cut(const struct gpu *g, const struct attending &a, int segments)
{
    if (a.few)
        launch<FEW>(g, a, segments);
    else
        launch<MANY>(g, a, segments);
}
