/* Attention by rows: a thread block takes a query head of a token from its scores to the end, and reads keys and values
 * where they lie. With few rows over a short context nearly all the time is waiting: here each thread has many reads on
 * their way, the first of them before it knows what they are needed with, nothing is written that another must read but
 * in shared memory, and a step needs four barriers. */
#include <math.h>

#include "kernels/cuda/attention.cuh"

enum {
    ROW_WARPS = 16,
    ROW_THREADS = ROW_WARPS * LANES,
    MANY_WORDS = 16, FEW_WORDS = 8,    /* half of those on their way; FEW: of threads that share a multiprocessor */
    TAIL = 4,                          /* pairs of a head come by fours */
};
static_assert(KV_PAGE % MANY_WORDS == 0, "what is read at once lies in a page");

/* A thread block's row. */
struct one_row {
    int64_t at;
    int begin, end;                    /* positions that it looks at */
    int base, segments;                /* the first of them and how many, from where weights lie */
    const uint32_t *pages;
    int64_t head;                      /* pages of the cache before those of the own KV head */
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
    return r;
}

/* The page of a position, in k or v, of so many values a position. */
static __device__ __forceinline__ const uint32_t *words_of(const struct one_row &r, const uint16_t *cache, int dim,
                                                           int position)
{
    return (const uint32_t *)cache + (r.head + r.pages[position / KV_PAGE]) * (dim * (KV_PAGE / 2));
}

/* Asks for all pages that the row looks at, before what the launch before writes there may be read. A warp has a page;
 * the query heads that read the same ask for a share each. */
static __device__ __forceinline__ void ask_for_pages(const struct attending &a, const struct one_row &r)
{
    const int of_value = 2 * KV_PAGE / LINE, warps = blockDim.x / LANES, first = r.begin / KV_PAGE;
    for (int page = first + (int)threadIdx.x / LANES; page * KV_PAGE < r.end; page += warps) {
        const uint8_t *k = (const uint8_t *)words_of(r, a.k, a.dim, page * KV_PAGE);
        const uint8_t *v = (const uint8_t *)words_of(r, a.v, a.value, page * KV_PAGE);
        for (int i = blockIdx.x * LANES + threadIdx.x % LANES; i < a.dim * of_value; i += a.shared * LANES) {
            gpu_prefetch(k + i * LINE);
            if (i < a.value * of_value)
                gpu_prefetch(v + i * LINE);
        }
    }
}

/* Words of a thread that are on their way: the first half is read anew while the second is used. */
template <int HALF> struct ahead {
    uint32_t first[HALF], second[HALF];
};

/* load(i, to) begins to read words [i, i + HALF), as far as there are. */
template <int HALF, class Load>
static __device__ __forceinline__ void begin_words(struct ahead<HALF> &w, int begin, const Load &load)
{
    load(begin, w.first);
    load(begin + HALF, w.second);
}

/* use(i, words) for all words [begin, end), in order; the first ones have begun. */
template <int HALF, class Load, class Use>
static __device__ __forceinline__ void go_over(struct ahead<HALF> &w, int begin, int end, const Load &load,
                                               const Use &use)
{
    for (int i = begin; i < end; i += 2 * HALF) {
        use(i, w.first);
        load(i + 2 * HALF, w.first);
        use(i + HALF, w.second);
        load(i + 3 * HALF, w.second);
    }
}

/* What reads words of a position's key, of whose pairs [i, i + HALF): they are KV_PAGE apart. */
template <int HALF>
static __device__ __forceinline__ auto keys_of(const struct attending &a, const struct one_row &r, int position)
{
    const uint32_t *k = words_of(r, a.k, a.dim, position) + position % KV_PAGE;
    const int pairs = a.dim / 2;
    return [=](int i, uint32_t to[HALF]) {
#pragma unroll
        for (int j = 0; j < HALF; j++)
            if (i + j / TAIL * TAIL < pairs)
                to[j] = __ldg(k + (i + j) * KV_PAGE);
    };
}

/* The score of a position, the first words of whose key have begun. */
template <int HALF, class Load>
static __device__ __forceinline__ float score_of(const struct attending &a, struct ahead<HALF> &key, const Load &load,
                                                 const float2 *q)
{
    const int pairs = a.dim / 2;
    float acc = 0;
    go_over(key, 0, pairs, load, [&](int i, const uint32_t pair[HALF]) {
#pragma unroll
        for (int j = 0; j < HALF; j++) {
            if (i + j / TAIL * TAIL >= pairs)
                break;
            const float2 x = q[i + j];
            acc = __fmaf_rn(x.y, high_half(pair[j]), __fmaf_rn(x.x, low_half(pair[j]), acc));
        }
    });
    return score_from(a, acc);
}

static __device__ __forceinline__ bool looks_at(const struct one_row &r, int position)
{
    return position >= r.begin && position < r.end;
}

/* Begins the thread's first position. */
template <int HALF>
static __device__ __forceinline__ void begin_scores(const struct attending &a, const struct one_row &r,
                                                    struct ahead<HALF> &key)
{
    const int position = r.base + (int)threadIdx.x;
    if (looks_at(r, position))
        begin_words(key, 0, keys_of<HALF>(a, r, position));
}

/* Scores into w, from r.base on. Returns the thread's largest. */
template <int HALF>
static __device__ __forceinline__ float score_row(const struct attending &a, const struct one_row &r,
                                                  struct ahead<HALF> &key, const float2 *q, float *w)
{
    float most = -INFINITY;
    for (int i = threadIdx.x; r.base + i < r.end; i += (int)blockDim.x) {
        if (!looks_at(r, r.base + i))
            continue;
        const auto load = keys_of<HALF>(a, r, r.base + i);
        if (i >= (int)blockDim.x)
            begin_words(key, 0, load);
        const float s = score_of(a, key, load, q);
        w[i] = s;
        most = fmaxf(most, s);
    }
    return most;
}

/* The largest of all threads'. found: [ROW_WARPS], shared. */
static __device__ __forceinline__ float largest_of_block(float most, float *found)
{
    most = warp_max(most);
    if (threadIdx.x % LANES == 0)
        found[threadIdx.x / LANES] = most;
    __syncthreads();
#pragma unroll 4
    for (int i = 0; i < (int)blockDim.x / LANES; i++)
        most = fmaxf(most, found[i]);
    return most;
}

/* Each thread weighs the positions that it has scored. Where the row does not look, in its segments: 0. */
static __device__ __forceinline__ void weigh(const struct one_row &r, float most, float *w)
{
    for (int i = threadIdx.x; i < r.segments * ATTN_SEGMENT; i += blockDim.x) {
        const int position = r.base + i;
        w[i] = looks_at(r, position) ? gpu_exp(__fadd_rn(w[i], -most)) : 0.0f;
    }
}

/* 1 / the sum of the weights and the rest, found by a warp: those of a segment in SUM_LANES lanes, then the
 * segments. */
static __device__ __forceinline__ float inverse_sum(const struct one_row &r, const float *w, float rest)
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
    return __fdiv_rn(1.0f, __fadd_rn(sum, rest));
}

/* Two values beside each other, of a segment's positions [begin, end). */
struct strip {
    int begin, end;
    const float *w;                    /* their weights, from begin on */
    int pair;
};

/* Strip i of the row's, [segments, value / 2]. */
static __device__ __forceinline__ struct strip strip_of(const struct attending &a, const struct one_row &r, int i,
                                                        const float *w)
{
    const int segment = quotient(i / 2, a.divide_lanes), first = r.base + segment * ATTN_SEGMENT;
    const int begin = larger(first, r.begin) / MANY_WORDS * MANY_WORDS;
    return {begin, smaller(first + ATTN_SEGMENT, r.end), w + begin - r.base, i - segment * (a.value / 2)};
}

/* What reads a strip's words of positions [i, i + HALF). */
template <int HALF>
static __device__ __forceinline__ auto values_of(const struct attending &a, const struct one_row &r,
                                                 const struct strip &s)
{
    return [&a, r, s](int i, uint32_t to[HALF]) {
        const int row = a.value / 2;
        const uint32_t *v = i < s.end ? words_of(r, a.v, a.value, i) + i % KV_PAGE * row + s.pair : NULL;
#pragma unroll
        for (int j = 0; j < HALF; j++)
            to[j] = i + j >= r.begin && i + j < s.end ? __ldg(v + j * row) : 0;
    };
}

/* What a strip gives, whose first words have begun. Where the row does not look nothing is read: 0 times 0 changes no
 * sum but -0, and that is lost when the segments are added. */
template <int HALF, class Load>
static __device__ __forceinline__ float2 mix_strip(const struct strip &s, struct ahead<HALF> &values, const Load &load)
{
    float2 acc = make_float2(0, 0);
    go_over(values, s.begin, s.end, load, [&](int i, const uint32_t both[HALF]) {
        const float4 *weight = (const float4 *)(s.w + i - s.begin);
#pragma unroll
        for (int j = 0; j < HALF && i < s.end; j += 4) {
            const float4 four = weight[j / 4];
            const float e[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
            for (int k = 0; k < 4; k++) {
                acc.x = __fmaf_rn(e[k], low_half(both[j + k]), acc.x);
                acc.y = __fmaf_rn(e[k], high_half(both[j + k]), acc.y);
            }
        }
    });
    return acc;
}

/* Begins the thread's first strip. */
template <int HALF>
static __device__ __forceinline__ void begin_mixing(const struct attending &a, const struct one_row &r,
                                                    struct ahead<HALF> &values)
{
    const struct strip s = strip_of(a, r, threadIdx.x, NULL);
    if ((int)threadIdx.x < r.segments * (a.value / 2))
        begin_words(values, s.begin, values_of<HALF>(a, r, s));
}

/* parts [segments, value] */
template <int HALF>
static __device__ __forceinline__ void mix_row(const struct attending &a, const struct one_row &r,
                                               struct ahead<HALF> &values, const float *w, float2 *parts)
{
    for (int i = threadIdx.x; i < r.segments * (a.value / 2); i += blockDim.x) {
        const struct strip s = strip_of(a, r, i, w);
        const auto load = values_of<HALF>(a, r, s);
        if (i >= (int)blockDim.x)
            begin_words(values, s.begin, load);
        parts[i] = mix_strip(s, values, load);
    }
}

/* Adds the segments up, in ascending order: four values a thread. */
static __device__ __forceinline__ void finish_row(const struct attending &a, const struct one_row &r, float inverse,
                                                  const float4 *parts)
{
    const int lanes = a.value / FOUR, i = threadIdx.x;
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
    const int64_t at = blockIdx.z * a.of_token + (blockIdx.y * a.shared + blockIdx.x) * a.of_head + FOUR * i;
    if (!none)
        *(float4 *)(a.mixed.f32 + at) = make_float4(total[0], total[1], total[2], total[3]);
    if (a.quantise)
        quantise_four(a.mixed, at, total, none);
}

/* Thread block (query head of those that share a KV head, KV head, token). */
template <int HALF>
static __global__ void __launch_bounds__(ROW_THREADS, HALF == FEW_WORDS ? ROWS_OF_SM : 1) attend_row(struct attending a)
{
    SHARED_BYTES(shared);
    __shared__ float found[ROW_WARPS], inverse, rest;
    float *w = (float *)shared, *q = w + a.slots * ATTN_SEGMENT, *parts = q + a.dim;
    struct ahead<HALF> keys, values;
    const struct one_row r = find_row(a);
    ask_for_pages(a, r);
    gpu_begin();
    for (int i = threadIdx.x; i < a.dim / FOUR; i += blockDim.x)
        gpu_bring((float4 *)q + i, (const float4 *)(a.q + r.at * a.dim) + i);
    begin_scores(a, r, keys);
    gpu_brought();
    __syncthreads();
    const int head = blockIdx.y * a.shared + blockIdx.x;
    const float own = score_row(a, r, keys, (const float2 *)q, w);
    begin_mixing(a, r, values);
    const float most = largest_of(a, head, largest_of_block(own, found));
    weigh(r, most, w);
    if (threadIdx.x == 0)
        rest = rest_of(a, head, most);
    __syncthreads();
    mix_row(a, r, values, w, (float2 *)parts);
    if (threadIdx.x / LANES == blockDim.x / LANES - 1) { /* which has the least to mix */
        const float all = inverse_sum(r, w, rest);
        if (threadIdx.x % LANES == 0)
            inverse = all;
    }
    __syncthreads();
    finish_row(a, r, inverse, (const float4 *)parts);
}

void attend_rows(const struct gpu *g, const struct attending &a)
{
    const int threads = a.slots * ATTN_SEGMENT < ROW_THREADS ? a.slots * ATTN_SEGMENT : ROW_THREADS;
    const size_t shared = (size_t)(a.slots * ATTN_SEGMENT + a.dim + a.slots * a.value) * sizeof(float);
    auto *kernel = a.n * a.n_q <= g->n_sms ? attend_row<MANY_WORDS> : attend_row<FEW_WORDS>;
    LAUNCH(kernel, dim3(a.shared, a.n_q / a.shared, a.n), dim3(threads), shared, g, a);
}
