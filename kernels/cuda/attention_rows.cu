/* Attention by rows: a thread block takes a query head of a token from its scores to the end, and reads keys and values
 * where they lie. With few rows over a short context nearly all the time is waiting: here each thread has many reads on
 * their way, nothing is written that another must read but in shared memory, and a step needs four barriers. */
#include <math.h>

#include "kernels/cuda/attention.cuh"

enum {
    ROW_WARPS = 16,
    ROW_THREADS = ROW_WARPS * LANES,
    AT_ONCE = 32,                      /* words that a thread reads at once */
    TAIL = 4,                          /* the same of what is left: pairs of a head come by fours */
};
static_assert(KV_PAGE % AT_ONCE == 0, "what is read at once lies in a page");

/* A thread block's row. */
struct one_row {
    int64_t at;
    int begin, end;                    /* positions that it looks at */
    int base, segments;                /* the first of them and how many, from where weights lie */
    const uint32_t *pages;
    int64_t head;                      /* pages of the cache before those of the own KV head */
    int page_words;
};

static __device__ __forceinline__ struct one_row find_row(const struct attending &a)
{
    struct one_row r;
    const int token = blockIdx.z, position = a.position[token];
    r.pages = a.tables + a.table[token];
    r.at = (int64_t)token * a.n_q + blockIdx.y * a.shared + blockIdx.x;
    r.begin = first_seen(a, position);
    r.end = position + 1;
    r.base = r.begin / ATTN_SEGMENT * ATTN_SEGMENT;
    r.segments = (r.end - r.base + ATTN_SEGMENT - 1) / ATTN_SEGMENT;
    r.head = blockIdx.y * a.n_pages;
    r.page_words = KV_PAGE * a.dim / 2;
    return r;
}

/* The page of a position, in k or v. */
static __device__ __forceinline__ const uint32_t *words_of(const struct one_row &r, const uint16_t *cache, int position)
{
    return (const uint32_t *)cache + (r.head + r.pages[position / KV_PAGE]) * r.page_words;
}

static __device__ __forceinline__ void ask_for_value(const struct attending &a, const struct one_row &r, int position)
{
    const uint8_t *v = (const uint8_t *)(words_of(r, a.v, position) + position % KV_PAGE * (a.dim / 2));
    for (int i = 0; i < 2 * a.dim; i += LINE)
        gpu_prefetch(v + i);
}

/* acc + the products of N pairs; those of a key are KV_PAGE apart. */
template <int N> static __device__ __forceinline__ float add_pairs(const uint32_t *k, const float2 *q, float acc)
{
    uint32_t pair[N];
#pragma unroll
    for (int i = 0; i < N; i++)
        pair[i] = __ldg(k + i * KV_PAGE);
#pragma unroll
    for (int i = 0; i < N; i++) {
        const float2 x = q[i];
        acc = __fmaf_rn(x.y, high_half(pair[i]), __fmaf_rn(x.x, low_half(pair[i]), acc));
    }
    return acc;
}

static __device__ __forceinline__ float score_of(const struct attending &a, const struct one_row &r, int position,
                                                 const float2 *q)
{
    const uint32_t *k = words_of(r, a.k, position) + position % KV_PAGE;
    const int pairs = a.dim / 2;
    float acc = 0;
    int i = 0;
    for (; i + AT_ONCE <= pairs; i += AT_ONCE)
        acc = add_pairs<AT_ONCE>(k + i * KV_PAGE, q + i, acc);
    for (; i < pairs; i += TAIL)
        acc = add_pairs<TAIL>(k + i * KV_PAGE, q + i, acc);
    return __fmul_rn(acc, a.scale);
}

/* Scores into w, from r.base on. Returns the thread's largest. */
static __device__ __forceinline__ float score_row(const struct attending &a, const struct one_row &r, const float2 *q,
                                                  float *w)
{
    float most = -INFINITY;
    for (int i = r.base + (int)threadIdx.x; i < r.end; i += (int)blockDim.x) {
        if (i < r.begin)
            continue;
        ask_for_value(a, r, i);
        const float s = score_of(a, r, i, q);
        w[i - r.base] = s;
        most = fmaxf(most, s);
    }
    return most;
}

/* The largest of all threads'. found: [ROW_WARPS], shared. */
static __device__ __forceinline__ float largest_of_block(float most, float *found)
{
    const int lane = threadIdx.x % LANES;
    most = warp_max(most);
    if (lane == 0)
        found[threadIdx.x / LANES] = most;
    __syncthreads();
    return warp_max(lane < (int)blockDim.x / LANES ? found[lane] : -INFINITY);
}

/* Each thread weighs the positions that it has scored. Where the row does not look, in its segments: 0. */
static __device__ __forceinline__ void weigh(const struct one_row &r, float most, float *w)
{
    for (int i = threadIdx.x; i < r.segments * ATTN_SEGMENT; i += blockDim.x) {
        const int position = r.base + i;
        w[i] = position >= r.begin && position < r.end ? gpu_exp(__fadd_rn(w[i], -most)) : 0.0f;
    }
}

/* 1 / the sum of the weights, found by a warp: those of a segment in SUM_LANES lanes, then the segments. */
static __device__ __forceinline__ float inverse_sum(const struct one_row &r, const float *w)
{
    float sum = 0;
    for (int s = 0; s < r.segments; s++, w += ATTN_SEGMENT) {
        float part = 0;
#pragma unroll
        for (int i = 0; i < ATTN_SEGMENT; i += SUM_LANES)
            part = __fadd_rn(part, w[i + threadIdx.x % SUM_LANES]);
        sum = __fadd_rn(sum, part);
    }
#pragma unroll
    for (int n = SUM_LANES / 2; n > 0; n /= 2)
        sum = __fadd_rn(sum, __shfl_xor_sync(FULL_MASK, sum, n));
    return __fdiv_rn(1.0f, sum);
}

/* What a segment gives pair `pair` of the values. Where the row does not look nothing is read: 0 times 0 changes no sum
 * but -0, and that is lost when the segments are added. */
static __device__ __forceinline__ float2 mix_pair(const struct attending &a, const struct one_row &r, int segment,
                                                  int pair, const float *w)
{
    const int first = r.base + segment * ATTN_SEGMENT, stop = smaller(first + ATTN_SEGMENT, r.end);
    float2 acc = make_float2(0, 0);
    for (int i = larger(first, r.begin) / AT_ONCE * AT_ONCE; i < stop; i += AT_ONCE) {
        const uint32_t *v = words_of(r, a.v, i) + i % KV_PAGE * (a.dim / 2) + pair;
        const float4 *weight = (const float4 *)(w + i - r.base);
        uint32_t both[AT_ONCE];
#pragma unroll
        for (int j = 0; j < AT_ONCE; j++)
            both[j] = i + j >= r.begin && i + j < stop ? __ldg(v + j * (a.dim / 2)) : 0;
#pragma unroll
        for (int j = 0; j < AT_ONCE; j += 4) {
            const float4 four = weight[j / 4];
            const float e[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
            for (int k = 0; k < 4; k++) {
                acc.x = __fmaf_rn(e[k], low_half(both[j + k]), acc.x);
                acc.y = __fmaf_rn(e[k], high_half(both[j + k]), acc.y);
            }
        }
    }
    return acc;
}

/* parts [segments, dim] */
static __device__ __forceinline__ void mix_row(const struct attending &a, const struct one_row &r, const float *w,
                                               float2 *parts)
{
    const int pairs = a.dim / 2;
    for (int i = threadIdx.x; i < r.segments * pairs; i += blockDim.x) {
        const int segment = quotient(i / 2, a.divide_lanes);
        parts[i] = mix_pair(a, r, segment, i - segment * pairs, w);
    }
}

/* Adds the segments up, in ascending order: four values a thread. */
static __device__ __forceinline__ void finish_row(const struct attending &a, const struct one_row &r, float inverse,
                                                  const float4 *parts)
{
    const int lanes = a.dim / FOUR, i = threadIdx.x;
    const bool none = i >= lanes;
    float total[FOUR] = {};
    if (i / LANES * LANES >= lanes)
        return;
    for (int s = 0; s < r.segments && !none; s++) {
        const float4 part = parts[s * lanes + i];
        total[0] = __fadd_rn(total[0], part.x);
        total[1] = __fadd_rn(total[1], part.y);
        total[2] = __fadd_rn(total[2], part.z);
        total[3] = __fadd_rn(total[3], part.w);
    }
#pragma unroll
    for (int k = 0; k < FOUR; k++)
        total[k] = __fmul_rn(inverse, total[k]);
    const int64_t at = r.at * a.dim + FOUR * i;
    if (!none)
        *(float4 *)(a.mixed.f32 + at) = make_float4(total[0], total[1], total[2], total[3]);
    if (a.quantise)
        quantise_four(a.mixed, at, total, none);
}

/* Thread block (query head of those that share a KV head, KV head, token). */
static __global__ void __launch_bounds__(ROW_THREADS) attend_row(struct attending a)
{
    gpu_begin();
    SHARED_BYTES(shared);
    __shared__ float found[ROW_WARPS], inverse;
    float *w = (float *)shared, *q = w + a.slots * ATTN_SEGMENT, *parts = q + a.dim;
    const struct one_row r = find_row(a);
    for (int i = threadIdx.x; i < a.dim / FOUR; i += blockDim.x)
        ((float4 *)q)[i] = ((const float4 *)(a.q + r.at * a.dim))[i];
    __syncthreads();
    weigh(r, largest_of_block(score_row(a, r, (const float2 *)q, w), found), w);
    __syncthreads();
    mix_row(a, r, w, (float2 *)parts);
    if (threadIdx.x / LANES == blockDim.x / LANES - 1) { /* which has the least to mix */
        const float all = inverse_sum(r, w);
        if (threadIdx.x % LANES == 0)
            inverse = all;
    }
    __syncthreads();
    finish_row(a, r, inverse, (const float4 *)parts);
}

void attend_rows(const struct gpu *g, const struct attending &a)
{
    const int threads = a.slots * ATTN_SEGMENT < ROW_THREADS ? a.slots * ATTN_SEGMENT : ROW_THREADS;
    const size_t shared = (size_t)(a.slots * ATTN_SEGMENT + (1 + a.slots) * a.dim) * sizeof(float);
    LAUNCH(attend_row, dim3(a.shared, a.n_q / a.shared, a.n), dim3(threads), shared, g, a);
}
