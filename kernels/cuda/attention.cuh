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
    ROW_VALUES = 4096,                 /* of all rows of a piece; twice as many where the stage is half as large */
    FEW = 2, MANY = 4,                 /* rows of a thread, at most: kernels for few take fewer registers */
    SEGMENT_PAGES = ATTN_SEGMENT / KV_PAGE,
    STAGE_VALUES = 16384,              /* f16 that shared memory holds at once, at most */
    SHORT_SLOTS = 2,                   /* so few segments that one thread block soon goes through them */
    ROW_POSITIONS = 8 * ATTN_SEGMENT,  /* so many of a row a thread block soon goes through, */
    ROWS_OF_SM = 2,                    /* if there are no more of these for each multiprocessor */
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
    struct acts mixed;                 /* what is mixed: of head h and token t at h * of_head + t * of_token */
    int64_t of_head, of_token;
    bool quantise;                     /* it, in whole blocks of heads */
    bool few;                          /* no thread has more than FEW rows */
    float scale, softcap, inverse_cap; /* of scores; 0: they are not capped */
    const float *sinks;                /* [n_q] or NULL */
    int n, n_q, shared, dim, value, window;
    int tokens, heads;                 /* of a piece, at most */
    int cuts;                          /* of the query heads that share a KV head */
    int pieces;                        /* of a token: KV heads times cuts */
    int divide_heads, divide_last;     /* by the heads of a piece, and of the last part: reciprocal() */
    int divide_lanes;                  /* by value / FOUR */
    int slots;                         /* of a row, at most */
    int stage, staged, room;           /* f16 of the stage; bytes of shared memory: of the stage, in all */
    float *scores;                     /* [slot, ATTN_SEGMENT] */
    float *parts;                      /* [slot, value] what the segment's positions give */
    float *sums;                       /* [slot, SUM_LANES] of their weights */
    float *most;                       /* [slot] the largest score */
    unsigned *done;                    /* [n, pieces] */
};

/* The ways (attention_rows.cu, attention_whole.cu, attention_cut.cu): by rows, by pieces, by segments of pieces. */
void attend_rows(const struct gpu *g, const struct attending &a); /* of no more than ROW_POSITIONS; takes no scratch */
void attend_whole(const struct gpu *g, const struct attending &a);
void attend_cut(const struct gpu *g, const struct attending &a, int segments /* of a piece, at most */);

/* Rows that are mixed at once: each takes as many threads as it has fours of values. */
static __host__ __device__ __forceinline__ int mix_groups(int value) { return ATTEND_THREADS / (value / FOUR); }

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

static __host__ __device__ __forceinline__ int smaller(int a, int b) { return a < b ? a : b; }
static __host__ __device__ __forceinline__ int larger(int a, int b) { return a > b ? a : b; }

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

/* The query head of a piece's row. */
static __device__ __forceinline__ int head_of(const struct piece &p, int i)
{
    return p.head + i - quotient(i, p.divide) * p.heads;
}

/* A query times a key as a score. */
static __device__ __forceinline__ float score_from(const struct attending &a, float product)
{
    const float s = __fmul_rn(product, a.scale);
    return a.softcap > 0 ? gpu_softcap(s, a.softcap, a.inverse_cap) : s;
}

/* The largest score, if a query head's sink is looked at too: last, as the CPU does. */
static __device__ __forceinline__ float largest_of(const struct attending &a, int head, float most)
{
    return a.sinks ? fmaxf(most, a.sinks[head]) : most;
}

/* What the sink adds to the sum of the weights. */
static __device__ __forceinline__ float rest_of(const struct attending &a, int head, float most)
{
    return a.sinks ? gpu_exp(__fadd_rn(a.sinks[head], -most)) : 0.0f;
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

/* Where page i of the piece's sequence begins in k or v, of so many values a position. A page that nobody looks at may
 * be none. */
static __device__ __forceinline__ const uint4 *page_of(const struct attending &a, const struct piece &p,
                                                       const uint16_t *cache, int dim, int i)
{
    if (i * KV_PAGE >= p.end || (i + 1) * KV_PAGE <= p.begin)
        return NULL;
    return (const uint4 *)(cache + ((int64_t)p.kv_head * a.n_pages + p.pages[i]) * KV_PAGE * dim);
}

/* Values [d, d + dims) of a segment's keys: [SEGMENT_PAGES, dims / 2, KV_PAGE, 2]. */
static __device__ __forceinline__ void stage_keys(const struct attending &a, const struct piece &p, int segment, int d,
                                                  int dims, uint4 *stage)
{
    const int of_page = dims * KV_PAGE / UNIT, of_pair = 2 * KV_PAGE / UNIT, first = d * KV_PAGE / UNIT;
    const uint4 *page0 = page_of(a, p, a.k, a.dim, SEGMENT_PAGES * segment);
    const uint4 *page1 = page_of(a, p, a.k, a.dim, SEGMENT_PAGES * segment + 1);
    fill_stage(stage, 2 * of_page, [&](int u) {
        const bool second = u >= of_page;
        const int i = second ? u - of_page : u;
        const int position = segment * ATTN_SEGMENT + second * KV_PAGE + i % of_pair * (UNIT / 2);
        const bool seen = position < p.end && position + UNIT / 2 > p.begin;
        return seen ? (second ? page1 : page0) + first + i : NULL;
    });
}

/* The values of a segment's positions [first, first + n): [n, value]. */
static __device__ __forceinline__ void stage_values(const struct attending &a, const struct piece &p, int segment,
                                                    int first, int n, uint4 *stage)
{
    const int of_page = a.value * KV_PAGE / UNIT, skipped = first * a.value / UNIT;
    const int begin = larger(p.begin - segment * ATTN_SEGMENT, 0) * a.value;
    const int end = smaller(p.end - segment * ATTN_SEGMENT, ATTN_SEGMENT) * a.value;
    const uint4 *page0 = page_of(a, p, a.v, a.value, SEGMENT_PAGES * segment);
    const uint4 *page1 = page_of(a, p, a.v, a.value, SEGMENT_PAGES * segment + 1);
    fill_stage(stage, n * a.value / UNIT, [&](int u) {
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

#endif
