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
    ROW_VALUES = 4096,                 /* of all rows of a piece */
    FEW = 2, MANY = 4,                 /* rows of a thread, at most: kernels for few take fewer registers */
    SEGMENT_PAGES = ATTN_SEGMENT / KV_PAGE,
    STAGE_VALUES = 16384,              /* f16 that shared memory holds at once */
    KEY_DIMS = STAGE_VALUES / ATTN_SEGMENT,
    SHORT_SLOTS = 2,                   /* so few segments that one thread block soon goes through them */
    LINE = 128,                        /* bytes that memory gives at once */
    UNIT = 8,                          /* f16 that a thread brings at once */
    DIVIDE_BITS = 20,
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
    int cuts;                          /* of the query heads that share a KV head */
    int pieces;                        /* of a token: KV heads times cuts */
    int divide_heads, divide_last;     /* by the heads of a piece, and of the last part: reciprocal() */
    int divide_lanes;                  /* by dim / FOUR */
    int slots;                         /* of a row, at most */
    int staged, room;                  /* bytes of shared memory: of the stage, in all */
    float *scores;                     /* [slot, ATTN_SEGMENT] */
    float *parts;                      /* [slot, dim] what the segment's positions give */
    float *sums;                       /* [slot, SUM_LANES] of their weights */
    float *most;                       /* [slot] the largest score */
    unsigned *done;                    /* [n, pieces] */
};

/* The two ways (attention_whole.cu, attention_cut.cu): by pieces, by segments of pieces. */
void attend_whole(const struct gpu *g, const struct attending &a);
void attend_cut(const struct gpu *g, const struct attending &a, int segments /* of a piece, at most */);

struct piece {
    int token, tokens;                 /* the first of how many */
    int kv_head, head, heads;          /* own KV head; the first of how many query heads */
    int rows, divide;                  /* [tokens, heads]; divides by heads */
    int position;                      /* of the first token */
    int begin, end;                    /* what any of them looks at */
    const uint32_t *pages;
};

struct row {
    int begin, end;                    /* positions that it looks at */
    int64_t at;
};

/* i / d is i * reciprocal(d) >> DIVIDE_BITS for i to 1024 and d to 256: a thread's own division takes long. */
static inline int reciprocal(int d) { return ((1 << DIVIDE_BITS) + d - 1) / d; }
static __device__ __forceinline__ int quotient(int i, int reciprocal) { return i * reciprocal >> DIVIDE_BITS; }

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
    const int t = a.n - 1 - (int)blockIdx.z, lane = threadIdx.x % LANES, inner = t & (a.tokens - 1);
    if (inner && continues(a, t))
        return false;
    p->tokens = 1;
    if (a.tokens > 1) {
        const int room = smaller(a.tokens - inner, a.n - t);
        unsigned joined = __ballot_sync(FULL_MASK, lane && lane < room && continues(a, t + lane)) >> 1;
        for (; joined & 1; joined >>= 1)
            p->tokens++;
    }
    const int part = a.cuts == 1 ? 0 : blockIdx.y % a.cuts;
    p->token = t;
    p->kv_head = a.cuts == 1 ? blockIdx.y : blockIdx.y / a.cuts;
    p->head = p->kv_head * a.shared + part * a.heads;
    p->heads = smaller(a.heads, a.shared - part * a.heads);
    p->divide = part == a.cuts - 1 ? a.divide_last : a.divide_heads;
    p->rows = p->tokens * p->heads;
    p->position = a.position[t];
    p->begin = first_seen(a, p->position);
    p->end = p->position + p->tokens;
    p->pages = a.tables + a.table[t];
    return true;
}

static __device__ __forceinline__ struct row row_of(const struct attending &a, const struct piece &p, int i)
{
    const int t = quotient(i, p.divide), position = p.position + t, h = i - t * p.heads;
    return {first_seen(a, position), position + 1, (int64_t)(p.token + t) * a.n_q + p.head + h};
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
    else
        f(each<MOST>());
}

/* ---- shared memory: the stage, then the rows' queries, later their weights ---- */

/* Begins to fill the stage with units: at(i) says where unit i lies; NULL: zeros. */
template <class Source> static __device__ __forceinline__ void fill_stage(uint4 *stage, int units, const Source &at)
{
#pragma unroll 4
    for (int i = threadIdx.x; i < units; i += ATTEND_THREADS) {
        const uint4 *from = at(i);
        if (from)
            gpu_bring(stage + i, from);
        else
            stage[i] = make_uint4(0, 0, 0, 0);
    }
}

/* Until all that the threads have begun is there. */
static __device__ __forceinline__ void await_stage(void)
{
    gpu_brought();
    __syncthreads();
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

/* Begins to bring the rows' queries, [dim / 2, n, 2]; past the piece's rows: zeros. n is a power of two. */
static __device__ __forceinline__ void stage_queries(const struct attending &a, const struct piece &p, int n, float *q)
{
    for (int i = threadIdx.x; i < n * a.dim / 2; i += ATTEND_THREADS) {
        const int row = i % n, pair = i / n;
        if (row < p.rows)
            gpu_bring((float2 *)q + i, (const float2 *)(a.q + row_of(a, p, row).at * a.dim) + pair);
        else
            ((float2 *)q)[i] = make_float2(0, 0);
    }
}

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
    for (int d = 0; d < a.dim; d += KEY_DIMS) {
        const int dims = smaller(KEY_DIMS, a.dim - d);
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
            s[j] = __fmul_rn(acc[r][j], a.scale);
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

/* ---- the mix: a thread has four values of M rows that follow each other ---- */

/* Rows at once: each takes as many threads as it has fours of values. */
static __host__ __device__ __forceinline__ int mix_groups(int dim) { return ATTEND_THREADS / (dim / FOUR); }

/* This thread's rows and values; past the piece's rows: it is idle. */
struct mixing {
    int row, lane, lanes;
};

template <int M> static __device__ __forceinline__ struct mixing mixing_of(const struct attending &a)
{
    const int group = quotient(threadIdx.x, a.divide_lanes), lanes = a.dim / FOUR;
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
    while (n * a.dim > STAGE_VALUES)
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
            add_staged<M>(a, p, segment, first, n, (const uint2 *)stage + x.lane, x.lanes, w + x.row * ATTN_SEGMENT, acc);
        __syncthreads();
    }
}

/* ---- the end ---- */

/* Rows = their totals times inverse [rows], into a.mixed. inverse and out [rows, dim] are shared; all threads of the block
 * come here together. */
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
        const int64_t at = row_of(a, p, row).at * a.dim + (i - row * x.lanes) * FOUR;
        if (!none)
            *(float4 *)(a.mixed.f32 + at) = v;
        if (a.quantise)
            quantise_four(a.mixed, at, four, none);
    }
}

#endif
