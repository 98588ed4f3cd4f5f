/* What the kernels of attention are made of. A thread block takes a piece: some neighbouring tokens of a run times the
 * query heads that share a KV head (its rows). It goes through segments of ATTN_SEGMENT positions, whose keys or values
 * it brings into shared memory, where all rows read them. */
#ifndef HEARTH_KERNELS_CUDA_ATTENTION_CUH
#define HEARTH_KERNELS_CUDA_ATTENTION_CUH

#include "kernels/cuda/attention.h"
#include "kernels/cuda/stream.cuh"

enum {
    ATTEND_THREADS = 256,
    WARPS = ATTEND_THREADS / LANES,
    MOST_ROWS = 32,                    /* of a piece */
    ROW_GROUPS = WARPS / 2,            /* of scores: two warps, a page each, for the same rows */
    ROW_VALUES = 4096,                 /* of all rows of a piece */
    FEW = 2, MANY = 8,                 /* rows of a thread, at most: kernels for few take fewer registers */
    SEGMENT_PAGES = ATTN_SEGMENT / KV_PAGE,
    STAGE_VALUES = 16384,              /* f16 that shared memory holds at once */
    KEY_DIMS = STAGE_VALUES / ATTN_SEGMENT,
    SHORT_SLOTS = 2,                   /* so few segments that one thread block soon goes through them */
    LINE = 128,                        /* bytes that memory gives at once */
    UNIT = 8,                          /* f16 that a lane brings at once */
    UNITS_AHEAD = 8,                   /* and how many such it has on their way */
};

/* A launch. A row is a query head of a token, counted [n, n_q]; a slot is a segment of a row, [n, n_q, slots]. */
struct attending {
    const uint32_t *position, *table, *tables; /* struct gpu_batch */
    const uint16_t *k, *v;
    int64_t n_pages;
    const float *q;                    /* [n, n_q, dim] */
    struct acts mixed;                 /* [n, n_q, dim] */
    bool quantise;                     /* it, in whole blocks of heads */
    bool few;                          /* no thread has more than FEW rows */
    float scale;
    int n, n_q, shared, dim, window;
    int tokens, heads;                 /* of a piece, at most */
    int pieces;                        /* of a token: KV heads, times parts of their query heads */
    int slots;                         /* of a row, at most */
    int staged, room;                  /* bytes of shared memory: of the stage, in all */
    float *scores;                     /* [slot, ATTN_SEGMENT] */
    float *parts;                      /* [slot, dim] what the segment's positions give */
    float *sums;                       /* [slot, SUM_LANES] of their weights */
    float *most;                       /* [slot, SEGMENT_PAGES] the pages' largest scores */
    unsigned *done;                    /* [n, pieces] */
};

/* The two ways (attention_whole.cu, attention_cut.cu): by pieces, by segments of pieces. */
void attend_whole(const struct gpu *g, const struct attending &a);
void attend_cut(const struct gpu *g, const struct attending &a, int segments /* of a piece, at most */);

struct piece {
    int token, tokens;                 /* the first of how many */
    int kv_head, head, heads;          /* own KV head; the first of how many query heads */
    int rows;                          /* [tokens, heads] */
    int position;                      /* of the first token */
    int begin, end;                    /* what any of them looks at */
    const uint32_t *pages;
};

struct row {
    int begin, end;                    /* positions that it looks at */
    int64_t at;
};

static __device__ __forceinline__ int smaller(int a, int b) { return a < b ? a : b; }
static __device__ __forceinline__ int larger(int a, int b) { return a > b ? a : b; }

/* The first position that a token looks at. */
static __device__ __forceinline__ int first_seen(const struct attending &a, int position)
{
    return a.window && position >= a.window ? position - a.window + 1 : 0;
}

/* Whether token t > 0 is its neighbour's next in a run. */
static __device__ __forceinline__ bool continues(const struct attending &a, int t)
{
    return a.table[t] == a.table[t - 1] && a.position[t] == a.position[t - 1] + 1;
}

/* The piece of thread block (.., KV head and part of its query heads, token). False: another's token leads it. The last
 * tokens, who have the most to look at, come first. */
static __device__ __forceinline__ bool find_piece(const struct attending &a, struct piece *p)
{
    const int t = a.n - 1 - (int)blockIdx.z, lane = threadIdx.x % LANES, parts = (a.shared + a.heads - 1) / a.heads;
    if (t % a.tokens && continues(a, t))
        return false;
    const int room = smaller(a.tokens - t % a.tokens, a.n - t);
    unsigned joined = __ballot_sync(FULL_MASK, lane == 0 || (lane < room && continues(a, t + lane)));
    for (p->tokens = 0; joined & 1; joined >>= 1)
        p->tokens++;
    const int head = blockIdx.y % parts * a.heads;
    p->token = t;
    p->kv_head = blockIdx.y / parts;
    p->head = p->kv_head * a.shared + head;
    p->heads = smaller(a.heads, a.shared - head);
    p->rows = p->tokens * p->heads;
    p->position = a.position[t];
    p->begin = first_seen(a, p->position);
    p->end = p->position + p->tokens;
    p->pages = a.tables + a.table[t];
    return true;
}

static __device__ __forceinline__ struct row row_of(const struct attending &a, const struct piece &p, int i)
{
    const int t = i / p.heads, position = p.position + t;
    return {first_seen(a, position), position + 1, (int64_t)(p.token + t) * a.n_q + p.head + i % p.heads};
}

/* -1: the row looks at no position of the segment. */
static __device__ __forceinline__ int64_t slot_of(const struct attending &a, const struct row &r, int segment)
{
    const int first = r.begin / ATTN_SEGMENT;
    return segment >= first && segment * ATTN_SEGMENT < r.end ? r.at * a.slots + segment - first : -1;
}

template <int N> struct each {
    static constexpr int rows = N;
};

/* Calls f(each<N>()) for the number of rows, MOST at most, that a thread takes where `at_once` groups of threads do. */
template <int MOST, class F> static __device__ __forceinline__ void with_rows(int rows, int at_once, const F &f)
{
    if (rows <= at_once)
        f(each<1>());
    else if (MOST == FEW || rows <= 2 * at_once)
        f(each<2>());
    else if (rows <= 4 * at_once)
        f(each<MOST / 2>());
    else
        f(each<MOST>());
}

/* ---- shared memory: the stage, then the rows' queries, later their weights ---- */

/* Fills the stage with units: at(i) says where unit i lies; NULL: zeros. */
template <class Source> static __device__ __forceinline__ void fill_stage(uint4 *stage, int units, const Source &at)
{
    for (int i = threadIdx.x; i < units; i += UNITS_AHEAD * ATTEND_THREADS) {
        uint4 x[UNITS_AHEAD];
#pragma unroll
        for (int j = 0; j < UNITS_AHEAD; j++) {
            const int u = i + j * ATTEND_THREADS;
            const uint4 *from = u < units ? at(u) : NULL;
            x[j] = from ? __ldg(from) : make_uint4(0, 0, 0, 0);
        }
#pragma unroll
        for (int j = 0; j < UNITS_AHEAD; j++)
            if (i + j * ATTEND_THREADS < units)
                stage[i + j * ATTEND_THREADS] = x[j];
    }
}

/* Where page i of the piece's sequence begins in k or v. A page that nobody looks at may be none. */
static __device__ __forceinline__ const uint4 *page_of(const struct attending &a, const struct piece &p,
                                                       const uint16_t *cache, int i)
{
    if (i * KV_PAGE >= p.end || (i + 1) * KV_PAGE <= p.begin)
        return NULL;
    return (const uint4 *)(cache + ((int64_t)p.kv_head * a.n_pages + p.pages[i]) * KV_PAGE * a.dim);
}

/* Values [d, d + dims) of a segment's keys: [SEGMENT_PAGES, dims / 2, KV_PAGE, 2]. */
static __device__ __forceinline__ void stage_keys(const struct attending &a, const struct piece &p, int segment, int d,
                                                  int dims, uint4 *stage)
{
    const int of_page = dims * KV_PAGE / UNIT, of_pair = 2 * KV_PAGE / UNIT, first = d * KV_PAGE / UNIT;
    const uint4 *page0 = page_of(a, p, a.k, SEGMENT_PAGES * segment);
    const uint4 *page1 = page_of(a, p, a.k, SEGMENT_PAGES * segment + 1);
    fill_stage(stage, 2 * of_page, [&](int u) {
        const bool second = u >= of_page;
        const int i = second ? u - of_page : u;
        const int position = segment * ATTN_SEGMENT + second * KV_PAGE + i % of_pair * (UNIT / 2);
        const bool seen = position < p.end && position + UNIT / 2 > p.begin;
        return seen ? (second ? page1 : page0) + first + i : NULL;
    });
}

/* The values of a segment's positions [first, first + n): [n, dim]. */
static __device__ __forceinline__ void stage_values(const struct attending &a, const struct piece &p, int segment,
                                                    int first, int n, uint4 *stage)
{
    const int of_page = a.dim * KV_PAGE / UNIT, skipped = first * a.dim / UNIT;
    const int begin = larger(p.begin - segment * ATTN_SEGMENT, 0) * a.dim;
    const int end = smaller(p.end - segment * ATTN_SEGMENT, ATTN_SEGMENT) * a.dim;
    const uint4 *page0 = page_of(a, p, a.v, SEGMENT_PAGES * segment);
    const uint4 *page1 = page_of(a, p, a.v, SEGMENT_PAGES * segment + 1);
    fill_stage(stage, n * a.dim / UNIT, [&](int u) {
        const int i = skipped + u;
        const bool seen = i * UNIT < end && (i + 1) * UNIT > begin;
        return seen ? (i >= of_page ? page1 + (i - of_page) : page0 + i) : NULL;
    });
}

static __device__ __forceinline__ float low_half(uint32_t word) { return f32_of_half_bits((uint16_t)word); }
static __device__ __forceinline__ float high_half(uint32_t word) { return f32_of_half_bits((uint16_t)(word >> 16)); }

/* The rows' queries, [dim / 2, n, 2]; past the piece's rows: zeros. n is a power of two. */
static __device__ __forceinline__ void load_queries(const struct attending &a, const struct piece &p, int n, float *q)
{
    for (int i = threadIdx.x; i < n * a.dim / 2; i += ATTEND_THREADS) {
        const int row = i % n, pair = i / n;
        float2 both = make_float2(0, 0);
        if (row < p.rows)
            both = __ldg((const float2 *)(a.q + row_of(a, p, row).at * a.dim) + pair);
        ((float2 *)q)[i] = both;
    }
}

/* ---- scores: a lane has two neighbouring positions of its warp's page, for R rows ---- */

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

/* Adds the products of pairs [0, n) that k, of the lane's two positions, and q, of its rows, begin with. */
template <int R>
static __device__ __forceinline__ void add_products(const uint2 *k, const float2 *q, int n, float (&acc)[R][2])
{
#pragma unroll 4
    for (int i = 0; i < n; i++, k += KV_PAGE / 2, q += ROW_GROUPS * R) {
        const uint2 both = *k;
        const float k0[2] = {low_half(both.x), high_half(both.x)}, k1[2] = {low_half(both.y), high_half(both.y)};
        float x[R][2];
        read_queries<R>(q, x);
#pragma unroll
        for (int r = 0; r < R; r++) {
            acc[r][0] = __fmaf_rn(x[r][1], k0[1], __fmaf_rn(x[r][0], k0[0], acc[r][0]));
            acc[r][1] = __fmaf_rn(x[r][1], k1[1], __fmaf_rn(x[r][0], k1[0], acc[r][1]));
        }
    }
}

/* The scores of a segment, into a.scores; most[r] becomes the lane's largest so far of row first + r. All threads of
 * the block come here together; q is [dim / 2, ROW_GROUPS * R, 2]. */
template <int R>
static __device__ __forceinline__ void score_segment(const struct attending &a, const struct piece &p, int segment,
                                                     uint4 *stage, const float *q, float (&most)[R])
{
    const int warp = threadIdx.x / LANES, lane = threadIdx.x % LANES, page = warp % 2, first = warp / 2 * R;
    float acc[R][2] = {};
    for (int d = 0; d < a.dim; d += KEY_DIMS) {
        const int dims = smaller(KEY_DIMS, a.dim - d);
        stage_keys(a, p, segment, d, dims, stage);
        __syncthreads();
        if (first < p.rows)
            add_products<R>((const uint2 *)stage + page * (dims / 2) * (KV_PAGE / 2) + lane,
                            (const float2 *)q + d / 2 * (ROW_GROUPS * R) + first, dims / 2, acc);
        __syncthreads();
    }
    const int place = page * KV_PAGE + 2 * lane, position = segment * ATTN_SEGMENT + place;
#pragma unroll
    for (int r = 0; r < R; r++) {
        const struct row row = row_of(a, p, first + r);
        const int64_t slot = slot_of(a, row, segment);
        if (first + r >= p.rows || slot < 0)
            continue;
        const float2 s = make_float2(__fmul_rn(acc[r][0], a.scale), __fmul_rn(acc[r][1], a.scale));
        if (position >= row.begin && position < row.end)
            most[r] = fmaxf(most[r], s.x);
        if (position + 1 >= row.begin && position + 1 < row.end)
            most[r] = fmaxf(most[r], s.y);
        *(float2 *)(a.scores + slot * ATTN_SEGMENT + place) = s;
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

/* exp(score - most) of a row's positions in a segment, into w [ATTN_SEGMENT]; -1, which no weight is, where it does not
 * look. Returns the segment's sum in lane i % 16: of a lane below 16. */
static __device__ __forceinline__ float weigh_row(const struct attending &a, const struct row &row, int segment,
                                                  float most, float *w)
{
    const int lane = threadIdx.x % LANES;
    const int64_t slot = slot_of(a, row, segment);
    float sum = 0;
#pragma unroll
    for (int j = 0; j < ATTN_SEGMENT / LANES; j++) {
        const int i = lane + j * LANES, position = segment * ATTN_SEGMENT + i;
        const bool seen = slot >= 0 && position >= row.begin && position < row.end;
        const float e = seen ? gpu_exp(__fadd_rn(a.scores[slot * ATTN_SEGMENT + i], -most)) : 0.0f;
        w[i] = seen ? e : -1.0f;
        sum = __fadd_rn(sum, e); /* where it does not look: + 0, which changes no sum of what is above 0 */
        sum = __fadd_rn(sum, __shfl_xor_sync(FULL_MASK, e, SUM_LANES));
    }
    return sum;
}

/* 1 / the sum of 16 lanes, added pairwise. */
static __device__ __forceinline__ float inverse_of(float lane_sum)
{
#pragma unroll
    for (int n = SUM_LANES / 2; n > 0; n /= 2)
        lane_sum = __fadd_rn(lane_sum, __shfl_xor_sync(FULL_MASK, lane_sum, n));
    return __fdiv_rn(1.0f, lane_sum);
}

/* ---- the mix: a thread has two values of M rows that follow each other ---- */

/* Rows at once: each takes as many threads as it has pairs of values. */
static __host__ __device__ __forceinline__ int mix_groups(int dim) { return ATTEND_THREADS / (dim / 2); }

/* The first of this thread's rows; past the last: it is idle. */
template <int M> static __device__ __forceinline__ int mix_row(int dim) { return threadIdx.x / (dim / 2) * M; }

/* Rows whose weights are read where a thread has `each`: those past the piece's get none. */
static __device__ __forceinline__ int weighed_rows(const struct piece &p, int each)
{
    return (p.rows + each - 1) & -each;
}

template <int M> static __device__ __forceinline__ void add_value(uint32_t v, const float (&w)[M], float (&acc)[M][2])
{
    const float v0 = low_half(v), v1 = high_half(v);
#pragma unroll
    for (int m = 0; m < M; m++) {
        acc[m][0] = __fmaf_rn(w[m], v0, acc[m][0]);
        acc[m][1] = __fmaf_rn(w[m], v1, acc[m][1]);
    }
}

/* Positions [begin, end) of a segment, at which not all rows look. w: the rows' weights [M, ATTN_SEGMENT]; v: the
 * thread's values of a position, `stride` words from those of the next. */
template <int M>
static __device__ __forceinline__ void add_seen(const float *w, const uint32_t *v, int stride, int begin, int end,
                                                float (&acc)[M][2])
{
    for (int i = begin; i < end; i++, v += stride) {
        const float v0 = low_half(*v), v1 = high_half(*v);
#pragma unroll
        for (int m = 0; m < M; m++) {
            const float e = w[m * ATTN_SEGMENT + i];
            if (e < 0)
                continue;
            acc[m][0] = __fmaf_rn(e, v0, acc[m][0]);
            acc[m][1] = __fmaf_rn(e, v1, acc[m][1]);
        }
    }
}

/* The same, at which all do; begin and end are multiples of 4. */
template <int M>
static __device__ __forceinline__ void add_all(const float *w, const uint32_t *v, int stride, int begin, int end,
                                               float (&acc)[M][2])
{
#pragma unroll(M < 4 ? 4 : 1)
    for (int i = begin; i < end; i += 4, v += 4 * stride) {
        float e[4][M];
#pragma unroll
        for (int m = 0; m < M; m++) {
            const float4 four = *(const float4 *)(w + m * ATTN_SEGMENT + i);
            e[0][m] = four.x, e[1][m] = four.y, e[2][m] = four.z, e[3][m] = four.w;
        }
#pragma unroll
        for (int j = 0; j < 4; j++)
            add_value<M>(v[j * stride], e[j], acc);
    }
}

/* What of a segment's positions [first, first + n), whose values are staged, the piece looks at. */
template <int M>
static __device__ __forceinline__ void add_staged(const struct attending &a, const struct piece &p, int segment,
                                                  int first, int n, const uint32_t *v, const float *w,
                                                  float (&acc)[M][2])
{
    const int base = segment * ATTN_SEGMENT, stride = a.dim / 2;
    const int begin = larger(first, p.begin - base), end = smaller(first + n, p.end - base);
    int all = (larger(begin, first_seen(a, p.position + p.tokens - 1) - base) + 3) & ~3;
    int some = smaller(end, p.position + 1 - base) & ~3; /* in [all, some) all rows look */
    if (all >= some)
        all = some = end;
    add_seen<M>(w, v + (begin - first) * stride, stride, begin, all, acc);
    add_all<M>(w, v + (all - first) * stride, stride, all, some, acc);
    add_seen<M>(w, v + (some - first) * stride, stride, some, end, acc);
}

/* What a segment's positions give the rows; w [rows, ATTN_SEGMENT] may be filled until the first barrier in here. */
template <int M>
static __device__ __forceinline__ void mix_segment(const struct attending &a, const struct piece &p, int segment,
                                                   uint4 *stage, const float *w, float (&acc)[M][2])
{
    const int row = mix_row<M>(a.dim);
    int n = ATTN_SEGMENT;
    while (n * a.dim > STAGE_VALUES)
        n /= 2;
    for (int first = 0; first < ATTN_SEGMENT; first += n) {
        const int base = segment * ATTN_SEGMENT + first;
        if (base >= p.end || base + n <= p.begin)
            continue;
        stage_values(a, p, segment, first, n, stage);
        __syncthreads();
        if (row < p.rows)
            add_staged<M>(a, p, segment, first, n, (const uint32_t *)stage + threadIdx.x % (a.dim / 2),
                          w + row * ATTN_SEGMENT, acc);
        __syncthreads();
    }
}

/* ---- the end ---- */

/* Rows = their totals times inverse [rows], into a.mixed. inverse and out [rows, dim] are shared; all threads of the block
 * come here together. */
template <int M>
static __device__ __forceinline__ void finish_rows(const struct attending &a, const struct piece &p,
                                                   const float (&total)[M][2], const float *inverse, float *out)
{
    const int first = mix_row<M>(a.dim), fours = a.dim / FOUR;
#pragma unroll
    for (int m = 0; m < M; m++)
        if (first + m < p.rows)
            ((float2 *)out)[(first + m) * (a.dim / 2) + threadIdx.x % (a.dim / 2)] = make_float2(
                __fmul_rn(inverse[first + m], total[m][0]), __fmul_rn(inverse[first + m], total[m][1]));
    __syncthreads();
    for (int i = threadIdx.x; i - (int)threadIdx.x < p.rows * fours; i += ATTEND_THREADS) {
        const bool none = i >= p.rows * fours;
        const float4 v = none ? make_float4(0, 0, 0, 0) : ((const float4 *)out)[i];
        const float four[FOUR] = {v.x, v.y, v.z, v.w};
        const int64_t at = row_of(a, p, none ? 0 : i / fours).at * a.dim + i % fours * FOUR;
        if (!none)
            *(float4 *)(a.mixed.f32 + at) = v;
        if (a.quantise)
            quantise_four(a.mixed, at, four, none);
    }
}

#endif
