/* What a thread block does with a segment of a piece: scores, weights, the mix; and what it does in the end. */
#ifndef HEARTH_KERNELS_CUDA_ATTENTION_PARTS_CUH
#define HEARTH_KERNELS_CUDA_ATTENTION_PARTS_CUH

#include "kernels/cuda/attention.cuh"

/* ---- scores: a lane has four neighbouring positions of the segment, for the R rows of its warp ---- */

template <int R> static __device__ __forceinline__ void read_queries(const float2 *q, float (&x)[R][2])
{
    if constexpr (R == 1) {
        const float2 two = *q;
        x[0][0] = two.x, x[0][1] = two.y;
    } else {
#pragma unroll
        for (int r = 0; r < R; r += 2) {
            const float4 four = *(const float4 *)(q + r);
            x[r][0] = four.x, x[r][1] = four.y, x[r + 1][0] = four.z, x[r + 1][1] = four.w;
        }
    }
}

/* Adds the products of pairs [0, n) that k, of the lane's positions, and q, of its rows, begin with. */
template <int R>
static __device__ __forceinline__ void add_products(const uint4 *k, const float2 *q, int n, float (&acc)[R][FOUR])
{
#pragma unroll(R > 1 ? 2 : 8)
    for (int i = 0; i < n; i++, k += KV_PAGE / FOUR, q += WARPS * R) {
        const uint4 four = *k;
        const uint32_t pair[FOUR] = {four.x, four.y, four.z, four.w};
        float x[R][2];
        read_queries<R>(q, x);
#pragma unroll
        for (int j = 0; j < FOUR; j++) {
            const float k0 = low_half(pair[j]), k1 = high_half(pair[j]);
#pragma unroll
            for (int r = 0; r < R; r++)
                acc[r][j] = __fmaf_rn(x[r][1], k1, __fmaf_rn(x[r][0], k0, acc[r][j]));
        }
    }
}

/* The scores of a segment, into a.scores; most[r] becomes the lane's largest so far of row first + r. All threads of
 * the block come here together; q is [dim / 2, WARPS * R, 2], and may be on its way. */
template <int R>
static __device__ __forceinline__ void score_segment(const struct attending &a, const struct piece &p, int segment,
                                                     uint4 *stage, const float *q, float (&most)[R])
{
    const int first = threadIdx.x / LANES * R, place = threadIdx.x % LANES * FOUR;
    float acc[R][FOUR] = {};
    const int at_once = a.stage / ATTN_SEGMENT;
    for (int d = 0; d < a.dim; d += at_once) {
        const int dims = smaller(at_once, a.dim - d);
        stage_keys(a, p, segment, d, dims, stage);
        await_stage();
        if (first < p.rows)
            add_products<R>(stage + (place / KV_PAGE * (dims / 2) * KV_PAGE + place % KV_PAGE) / FOUR,
                            (const float2 *)q + d / 2 * (WARPS * R) + first, dims / 2, acc);
        __syncthreads();
    }
    const int position = segment * ATTN_SEGMENT + place;
#pragma unroll
    for (int r = 0; r < R; r++) {
        const struct row row = row_of(a, p, first + r);
        const int64_t slot = slot_of(a, row, segment);
        if (first + r >= p.rows || slot < 0)
            continue;
        float s[FOUR];
#pragma unroll
        for (int j = 0; j < FOUR; j++) {
            s[j] = score_from(a, acc[r][j]);
            if (position + j >= row.begin && position + j < row.end)
                most[r] = fmaxf(most[r], s[j]);
        }
        *(float4 *)(a.scores + slot * ATTN_SEGMENT + place) = make_float4(s[0], s[1], s[2], s[3]);
    }
}

/* ---- weights: a warp has a row, its lanes four positions each ---- */

/* No weights, in the form of weigh_row. */
static __device__ __forceinline__ void weigh_none(float *w)
{
#pragma unroll
    for (int j = 0; j < ATTN_SEGMENT / LANES; j++)
        w[threadIdx.x % LANES + j * LANES] = -1.0f;
}

/* exp(score - most()) of a row's positions in a segment, into w [ATTN_SEGMENT]; -1, which no weight is, where it does
 * not look. Returns the segment's sum in lane i % 16: of a lane below 16. */
template <class Most>
static __device__ __forceinline__ float weigh_row(const struct attending &a, const struct row &row, int segment,
                                                  const Most &most, float *w)
{
    const int lane = threadIdx.x % LANES;
    const int64_t slot = slot_of(a, row, segment);
    float e[ATTN_SEGMENT / LANES], sum = 0;
#pragma unroll
    for (int j = 0; j < ATTN_SEGMENT / LANES; j++) /* all are on their way before one is there */
        e[j] = slot < 0 ? 0.0f : a.scores[slot * ATTN_SEGMENT + lane + j * LANES];
    const float largest = most();
#pragma unroll
    for (int j = 0; j < ATTN_SEGMENT / LANES; j++) {
        const int i = lane + j * LANES, position = segment * ATTN_SEGMENT + i;
        const bool seen = slot >= 0 && position >= row.begin && position < row.end;
        e[j] = seen ? gpu_exp(__fadd_rn(e[j], -largest)) : 0.0f;
        w[i] = seen ? e[j] : -1.0f;
        sum = __fadd_rn(sum, e[j]); /* where it does not look: + 0, which changes no sum of what is above 0 */
        sum = __fadd_rn(sum, __shfl_xor_sync(FULL_MASK, e[j], SUM_LANES));
    }
    return sum;
}

/* 1 / the sum of 16 lanes, added pairwise, and of the rest. */
static __device__ __forceinline__ float inverse_of(float lane_sum, float rest)
{
#pragma unroll
    for (int n = SUM_LANES / 2; n > 0; n /= 2)
        lane_sum = __fadd_rn(lane_sum, __shfl_xor_sync(FULL_MASK, lane_sum, n));
    return __fdiv_rn(1.0f, __fadd_rn(lane_sum, rest)); /* + 0 changes no sum of what is above 0 */
}

/* ---- the mix: a thread has four values of M rows that follow each other ---- */

/* This thread's rows and values; past the piece's rows: it is idle. */
struct mixing {
    int row, lane, lanes;
};

template <int M> static __device__ __forceinline__ struct mixing mixing_of(const struct attending &a)
{
    const int group = quotient(threadIdx.x, a.divide_lanes), lanes = a.value / FOUR;
    return {group * M, (int)threadIdx.x - group * lanes, lanes};
}

/* Rows whose weights are read where a thread has `each`: those past the piece's get none. */
static __device__ __forceinline__ int weighed_rows(const struct piece &p, int each)
{
    return (p.rows + each - 1) & -each;
}

/* Positions [begin, end) of a segment, at which not all rows look. w: the rows' weights [M, ATTN_SEGMENT]; v: the
 * thread's values of a position, `stride` fours from those of the next. */
template <int M>
static __device__ __forceinline__ void add_seen(const float *w, const uint2 *v, int stride, int begin, int end,
                                                float (&acc)[M][FOUR])
{
    for (int i = begin; i < end; i++, v += stride) {
        const float x[FOUR] = {low_half(v->x), high_half(v->x), low_half(v->y), high_half(v->y)};
#pragma unroll
        for (int m = 0; m < M; m++) {
            const float e = w[m * ATTN_SEGMENT + i];
            if (e < 0)
                continue;
#pragma unroll
            for (int k = 0; k < FOUR; k++)
                acc[m][k] = __fmaf_rn(e, x[k], acc[m][k]);
        }
    }
}

/* The same, at which all do; begin and end are multiples of 4. */
template <int M>
static __device__ __forceinline__ void add_all(const float *w, const uint2 *v, int stride, int begin, int end,
                                               float (&acc)[M][FOUR])
{
#pragma unroll(M > 1 ? 1 : 4)
    for (int i = begin; i < end; i += 4, v += 4 * stride) {
        float e[4][M];
#pragma unroll
        for (int m = 0; m < M; m++) {
            const float4 four = *(const float4 *)(w + m * ATTN_SEGMENT + i);
            e[0][m] = four.x, e[1][m] = four.y, e[2][m] = four.z, e[3][m] = four.w;
        }
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const uint2 both = v[j * stride];
            const float x[FOUR] = {low_half(both.x), high_half(both.x), low_half(both.y), high_half(both.y)};
#pragma unroll
            for (int m = 0; m < M; m++)
#pragma unroll
                for (int k = 0; k < FOUR; k++)
                    acc[m][k] = __fmaf_rn(e[j][m], x[k], acc[m][k]);
        }
    }
}

/* What of a segment's positions [first, first + n), whose values are staged, the piece looks at. */
template <int M>
static __device__ __forceinline__ void add_staged(const struct attending &a, const struct piece &p, int segment,
                                                  int first, int n, const uint2 *v, int stride, const float *w,
                                                  float (&acc)[M][FOUR])
{
    const int base = segment * ATTN_SEGMENT;
    const int begin = larger(first, p.begin - base), end = smaller(first + n, p.end - base);
    int all = (larger(begin, first_seen(a, p.position + p.tokens - 1) - base) + 3) & ~3;
    int some = smaller(end, p.position + 1 - base) & ~3; /* in [all, some) all rows look */
    if (all >= some)
        all = some = end;
    add_seen<M>(w, v + (begin - first) * stride, stride, begin, all, acc);
    add_all<M>(w, v + (all - first) * stride, stride, all, some, acc);
    add_seen<M>(w, v + (some - first) * stride, stride, some, end, acc);
}

/* What a segment's positions give the rows; weigh() fills w [rows, ATTN_SEGMENT] while values are on their way. */
template <int M, class Weigh>
static __device__ __forceinline__ void mix_segment(const struct attending &a, const struct piece &p, int segment,
                                                   uint4 *stage, const float *w, const Weigh &weigh,
                                                   float (&acc)[M][FOUR])
{
    const struct mixing x = mixing_of<M>(a);
    bool weighed = false;
    int n = ATTN_SEGMENT;
    while (n * a.value > a.stage)
        n /= 2;
    for (int first = 0; first < ATTN_SEGMENT; first += n) {
        const int base = segment * ATTN_SEGMENT + first;
        if (base >= p.end || base + n <= p.begin)
            continue;
        stage_values(a, p, segment, first, n, stage);
        if (!weighed)
            weigh();
        weighed = true;
        await_stage();
        if (x.row < p.rows)
            add_staged<M>(a, p, segment, first, n, (const uint2 *)stage + x.lane, x.lanes,
                          w + x.row * ATTN_SEGMENT, acc);
        __syncthreads();
    }
}

/* ---- the end ---- */

/* Where what a piece's row gives begins in a.mixed. */
static __device__ __forceinline__ int64_t place_of(const struct attending &a, const struct piece &p, int i)
{
    const int t = quotient(i, p.divide);
    return (p.token + t) * a.of_token + (p.head + i - t * p.heads) * a.of_head;
}

/* Rows = their totals times inverse [rows], into a.mixed. inverse and out [rows, value] are shared; all threads of the
 * block come here together. */
template <int M>
static __device__ __forceinline__ void finish_rows(const struct attending &a, const struct piece &p,
                                                   const float (&total)[M][FOUR], const float *inverse, float4 *out)
{
    const struct mixing x = mixing_of<M>(a);
#pragma unroll
    for (int m = 0; m < M; m++) {
        if (x.row + m >= p.rows)
            continue;
        const float by = inverse[x.row + m];
        out[(x.row + m) * x.lanes + x.lane] = make_float4(__fmul_rn(by, total[m][0]), __fmul_rn(by, total[m][1]),
                                                          __fmul_rn(by, total[m][2]), __fmul_rn(by, total[m][3]));
    }
    __syncthreads();
    for (int i = threadIdx.x; i - (int)threadIdx.x < p.rows * x.lanes; i += ATTEND_THREADS) {
        const bool none = i >= p.rows * x.lanes;
        const float4 v = none ? make_float4(0, 0, 0, 0) : out[i];
        const float four[FOUR] = {v.x, v.y, v.z, v.w};
        const int row = none ? 0 : quotient(i, a.divide_lanes);
        const int64_t at = place_of(a, p, row) + (i - row * x.lanes) * FOUR;
        if (!none)
            *(float4 *)(a.mixed.f32 + at) = v;
        if (a.quantise)
            quantise_four(a.mixed, at, four, none);
    }
}

#endif
