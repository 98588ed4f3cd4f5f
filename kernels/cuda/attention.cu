/* Attention in two ways. Where pieces are many or contexts short, a thread block takes a piece from its scores to the
 * end. Else the segments of a piece are spread over thread blocks, in three launches: scores; weights and what each
 * segment gives; their sums. Weights want the largest score of all, which only the next launch knows. */
#include <math.h>

#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/stream.h"

enum {
    MERGE_THREADS = 128,
    SHORT_SLOTS = 2,                   /* so few segments that one thread block soon goes through them */
    MOST_Z = 65535,                    /* of a grid */
};
static const uint64_t most_scratch = 64 << 20; /* more tokens go one group after the other */

/* ---- a piece by a thread block ---- */

/* The scores of all segments; then maxima [rows, SEGMENT_PAGES], where the stage was. */
template <int R>
static __device__ __forceinline__ void score_all(const struct attending &a, const struct piece &p, uint4 *stage,
                                                 float *q)
{
    const int warp = threadIdx.x / LANES, first = warp / 2 * R;
    float most[R];
#pragma unroll
    for (int r = 0; r < R; r++)
        most[r] = -INFINITY;
    load_queries(a, p, ROW_GROUPS * R, q); /* the first segment's barriers are before anybody reads them */
    for (int s = p.begin / ATTN_SEGMENT; s * ATTN_SEGMENT < p.end; s++)
        score_segment<R>(a, p, s, stage, q, most);
#pragma unroll
    for (int r = 0; r < R; r++) {
        const float page = warp_max(most[r]);
        if (threadIdx.x % LANES == 0 && first + r < p.rows)
            ((float *)stage)[(first + r) * SEGMENT_PAGES + warp % 2] = page;
    }
}

/* The sums of lanes and the largest scores of a warp's rows: WARPS apart. */
struct warp_rows {
    float most[MOST_ROWS / WARPS], sum[MOST_ROWS / WARPS];
};

/* The weights of a segment, into w [rows, ATTN_SEGMENT]. */
static __device__ __forceinline__ void weigh_rows(const struct attending &a, const struct piece &p, int segment,
                                                  int rows, float *w, struct warp_rows &mine)
{
#pragma unroll
    for (int i = 0; i < MOST_ROWS / WARPS; i++) {
        const int row = threadIdx.x / LANES + i * WARPS;
        if (row < p.rows) {
            const float sum = weigh_row(a, row_of(a, p, row), segment, mine.most[i], w + row * ATTN_SEGMENT);
            mine.sum[i] = __fadd_rn(mine.sum[i], sum);
        } else if (row < rows) {
            weigh_none(w + row * ATTN_SEGMENT);
        }
    }
}

/* 1 / the sum of each row's weights, into inverse [rows]. */
static __device__ __forceinline__ void invert_sums(const struct piece &p, const struct warp_rows &mine, float *inverse)
{
#pragma unroll
    for (int i = 0; i < MOST_ROWS / WARPS; i++) {
        const int row = threadIdx.x / LANES + i * WARPS;
        const float all = inverse_of(mine.sum[i]);
        if (threadIdx.x % LANES == 0 && row < p.rows)
            inverse[row] = all;
    }
}

/* The mix of all segments, into a.mixed. A row that a segment gives nothing adds +0: no total is -0, none changes. */
template <int M>
static __device__ __forceinline__ void mix_all(const struct attending &a, const struct piece &p, uint4 *stage, float *w,
                                               struct warp_rows &mine)
{
    float total[M][2] = {};
    for (int s = p.begin / ATTN_SEGMENT; s * ATTN_SEGMENT < p.end; s++) {
        weigh_rows(a, p, s, weighed_rows(p, M), w, mine);
        float part[M][2] = {};
        mix_segment<M>(a, p, s, stage, w, part);
#pragma unroll
        for (int m = 0; m < M; m++)
            for (int j = 0; j < 2; j++)
                total[m][j] = __fadd_rn(total[m][j], part[m][j]);
    }
    float *inverse = (float *)stage;
    invert_sums(p, mine, inverse);
    __syncthreads();
#pragma unroll
    for (int m = 0; m < M; m++) {
        const int row = mix_row<M>(a.dim) + m;
        if (row < p.rows)
            ((float2 *)(a.mixed + row_of(a, p, row).at * a.dim))[threadIdx.x % (a.dim / 2)] =
                make_float2(__fmul_rn(inverse[row], total[m][0]), __fmul_rn(inverse[row], total[m][1]));
    }
}

static __global__ void __launch_bounds__(ATTEND_THREADS, 2) attend_pieces(struct attending a, int staged)
{
    SHARED_BYTES(shared);
    uint4 *stage = (uint4 *)shared;
    float *rows = (float *)(shared + staged);
    struct piece p;
    if (!find_piece(a, &p))
        return;
    if (p.rows <= ROW_GROUPS)
        score_all<1>(a, p, stage, rows);
    else if (p.rows <= 2 * ROW_GROUPS)
        score_all<2>(a, p, stage, rows);
    else if (p.rows <= 4 * ROW_GROUPS)
        score_all<4>(a, p, stage, rows);
    else
        score_all<8>(a, p, stage, rows);
    __syncthreads();

    struct warp_rows mine;
#pragma unroll
    for (int i = 0; i < MOST_ROWS / WARPS; i++) {
        const int row = smaller(threadIdx.x / LANES + i * WARPS, p.rows - 1);
        const float *page = (const float *)stage + row * SEGMENT_PAGES;
        mine.most[i] = fmaxf(page[0], page[1]);
        mine.sum[i] = 0;
    }
    __syncthreads();
    const int groups = mix_groups(a.dim);
    if (p.rows <= groups)
        mix_all<1>(a, p, stage, rows, mine);
    else if (p.rows <= 2 * groups)
        mix_all<2>(a, p, stage, rows, mine);
    else if (p.rows <= 4 * groups)
        mix_all<4>(a, p, stage, rows, mine);
    else
        mix_all<8>(a, p, stage, rows, mine);
}

/* ---- a segment of a piece by a thread block ---- */

template <int R>
static __device__ __forceinline__ void score_one(const struct attending &a, const struct piece &p, int segment,
                                                 uint4 *stage, float *q)
{
    const int warp = threadIdx.x / LANES, first = warp / 2 * R;
    float most[R];
#pragma unroll
    for (int r = 0; r < R; r++)
        most[r] = -INFINITY;
    load_queries(a, p, ROW_GROUPS * R, q);
    score_segment<R>(a, p, segment, stage, q, most);
#pragma unroll
    for (int r = 0; r < R; r++) {
        const float page = warp_max(most[r]);
        const int64_t slot = slot_of(a, row_of(a, p, first + r), segment);
        if (threadIdx.x % LANES == 0 && first + r < p.rows && slot >= 0)
            a.most[slot * SEGMENT_PAGES + warp % 2] = page;
    }
}

static __global__ void __launch_bounds__(ATTEND_THREADS, 3) score_segments(struct attending a, int staged)
{
    SHARED_BYTES(shared);
    uint4 *stage = (uint4 *)shared;
    float *q = (float *)(shared + staged);
    struct piece p;
    if (!find_piece(a, &p))
        return;
    const int segment = p.begin / ATTN_SEGMENT + blockIdx.x;
    if (segment * ATTN_SEGMENT >= p.end)
        return;
    if (p.rows <= ROW_GROUPS)
        score_one<1>(a, p, segment, stage, q);
    else if (p.rows <= 2 * ROW_GROUPS)
        score_one<2>(a, p, segment, stage, q);
    else if (p.rows <= 4 * ROW_GROUPS)
        score_one<4>(a, p, segment, stage, q);
    else
        score_one<8>(a, p, segment, stage, q);
}

/* The largest of a row's scores, found by a warp. */
static __device__ __forceinline__ float largest_score(const struct attending &a, const struct row &row)
{
    const int slots = (row.end - 1) / ATTN_SEGMENT - row.begin / ATTN_SEGMENT + 1;
    const float *page = a.most + row.at * a.slots * SEGMENT_PAGES;
    float most = -INFINITY;
    for (int i = threadIdx.x % LANES; i < slots * SEGMENT_PAGES; i += LANES)
        most = fmaxf(most, page[i]);
    return warp_max(most);
}

/* The weights of a row in a segment, into w; their sums, into a.sums. */
static __device__ __forceinline__ void weigh_slot(const struct attending &a, const struct row &row, int segment,
                                                  float *w)
{
    const int lane = threadIdx.x % LANES;
    const int64_t slot = slot_of(a, row, segment);
    const float sum = weigh_row(a, row, segment, largest_score(a, row), w);
    if (lane < SUM_LANES && slot >= 0)
        a.sums[slot * SUM_LANES + lane] = sum;
}

template <int M>
static __device__ __forceinline__ void mix_one(const struct attending &a, const struct piece &p, int segment,
                                               uint4 *stage, float *w)
{
    for (int i = threadIdx.x / LANES; i < weighed_rows(p, M); i += WARPS) {
        if (i < p.rows)
            weigh_slot(a, row_of(a, p, i), segment, w + i * ATTN_SEGMENT);
        else
            weigh_none(w + i * ATTN_SEGMENT);
    }
    float part[M][2] = {};
    mix_segment<M>(a, p, segment, stage, w, part);
#pragma unroll
    for (int m = 0; m < M; m++) {
        const int row = mix_row<M>(a.dim) + m;
        const int64_t slot = slot_of(a, row_of(a, p, row), segment);
        if (row < p.rows && slot >= 0)
            ((float2 *)(a.parts + slot * a.dim))[threadIdx.x % (a.dim / 2)] = make_float2(part[m][0], part[m][1]);
    }
}

static __global__ void __launch_bounds__(ATTEND_THREADS, 3) mix_segments(struct attending a, int staged)
{
    SHARED_BYTES(shared);
    uint4 *stage = (uint4 *)shared;
    float *w = (float *)(shared + staged);
    struct piece p;
    if (!find_piece(a, &p))
        return;
    const int segment = p.begin / ATTN_SEGMENT + blockIdx.x;
    if (segment * ATTN_SEGMENT >= p.end)
        return;
    const int groups = mix_groups(a.dim);
    if (p.rows <= groups)
        mix_one<1>(a, p, segment, stage, w);
    else if (p.rows <= 2 * groups)
        mix_one<2>(a, p, segment, stage, w);
    else if (p.rows <= 4 * groups)
        mix_one<4>(a, p, segment, stage, w);
    else
        mix_one<8>(a, p, segment, stage, w);
}

/* Thread block (query head, token): the segments' sums, in ascending order. */
static __global__ void __launch_bounds__(MERGE_THREADS) merge_segments(struct attending a)
{
    const int position = a.position[blockIdx.y], begin = first_seen(a, position);
    const int slots = position / ATTN_SEGMENT - begin / ATTN_SEGMENT + 1;
    const int64_t row = (int64_t)blockIdx.y * a.n_q + blockIdx.x;
    const float *sums = a.sums + row * a.slots * SUM_LANES + threadIdx.x % SUM_LANES; /* every warp adds them all */
    float sum = 0;
#pragma unroll 8
    for (int i = 0; i < slots; i++)
        sum = __fadd_rn(sum, sums[i * SUM_LANES]);
    const float inverse = inverse_of(sum);
    for (int pair = threadIdx.x; pair < a.dim / 2; pair += MERGE_THREADS) {
        const float2 *part = (const float2 *)(a.parts + row * a.slots * a.dim) + pair;
        float2 total = make_float2(0, 0);
#pragma unroll 8
        for (int i = 0; i < slots; i++) {
            const float2 both = part[i * (a.dim / 2)];
            total = make_float2(__fadd_rn(total.x, both.x), __fadd_rn(total.y, both.y));
        }
        ((float2 *)(a.mixed + row * a.dim))[pair] =
            make_float2(__fmul_rn(inverse, total.x), __fmul_rn(inverse, total.y));
    }
}

/* ---- launches ---- */

/* Rows that a piece may have. */
static int rows_of_pieces(int64_t dim)
{
    const int64_t groups = ATTEND_THREADS / (dim / 2);
    int64_t rows = MOST_ROWS;
    while (rows * dim > ROW_VALUES || rows > 8 * groups)
        rows /= 2;
    return (int)rows;
}

/* Segments that n neighbouring tokens together look at, at most. */
static int64_t most_segments(const struct gpu_heads *h, int64_t n, uint32_t positions)
{
    const int64_t all = ((int64_t)positions + ATTN_SEGMENT - 1) / ATTN_SEGMENT;
    const int64_t seen = (h->window + n - 1 + ATTN_SEGMENT - 2) / ATTN_SEGMENT + 1;
    return h->window && seen < all ? seen : all;
}

static uint64_t token_scores(const struct gpu_heads *h, int64_t slots)
{
    return (uint64_t)(h->n_kv * h->shared * slots) * ATTN_SEGMENT * sizeof(float);
}

static uint64_t token_scratch(const struct gpu_heads *h, int64_t slots)
{
    const uint64_t others = (uint64_t)(h->dim + SUM_LANES + SEGMENT_PAGES) * sizeof(float);
    return token_scores(h, slots) + (uint64_t)(h->n_kv * h->shared * slots) * others;
}

uint64_t gpu_attention_scratch(const struct gpu_heads *h, int64_t n, uint32_t n_ctx)
{
    const uint64_t token = token_scratch(h, most_segments(h, 1, n_ctx));
    uint64_t tokens = most_scratch / token;
    tokens = tokens < 1 ? 1 : tokens;
    return token * (tokens < (uint64_t)n ? tokens : (uint64_t)n);
}

/* Tokens [t0, t0 + n) of the batch. */
static struct attending attending_of(const struct gpu_batch *b, const struct gpu_heads *h, const float *q, float *mixed,
                                     void *scratch, int64_t t0, int64_t n)
{
    const int64_t n_q = h->n_kv * h->shared, rows = rows_of_pieces(h->dim);
    struct attending a = {};
    a.position = b->position + t0;
    a.table = b->table + t0;
    a.tables = b->tables;
    a.k = h->k;
    a.v = h->v;
    a.n_pages = h->n_pages;
    a.q = q + t0 * n_q * h->dim;
    a.mixed = mixed + t0 * n_q * h->dim;
    a.scale = 1.0f / sqrtf((float)h->dim);
    a.n = (int)n;
    a.n_q = (int)n_q;
    a.shared = (int)h->shared;
    a.dim = (int)h->dim;
    a.window = h->window < b->most_positions ? (int)h->window : 0;
    a.heads = (int)(h->shared < rows ? h->shared : rows);
    a.tokens = (int)(rows / a.heads);
    a.slots = (int)most_segments(h, 1, b->most_positions);
    a.scores = (float *)scratch;
    a.parts = a.scores + n * n_q * a.slots * ATTN_SEGMENT;
    a.sums = a.parts + n * n_q * a.slots * h->dim;
    a.most = a.sums + n * n_q * a.slots * SUM_LANES;
    return a;
}

/* Shared memory of a thread block: the stage comes first. */
struct room {
    int staged, bytes;
};

static struct room room_of(const struct attending &a)
{
    const int values = a.dim < KEY_DIMS ? a.dim * ATTN_SEGMENT : STAGE_VALUES;
    const int rows = (a.n < a.tokens ? a.n : a.tokens) * a.heads;
    int padded = ROW_GROUPS;
    while (padded < rows)
        padded *= 2;
    const int queries = padded * a.dim, weights = padded * ATTN_SEGMENT, staged = values * (int)sizeof(uint16_t);
    return {staged, staged + (queries > weights ? queries : weights) * (int)sizeof(float)};
}

/* KV heads, times the pieces that their query heads make. */
static int head_pieces(const struct gpu_heads *h, const struct attending &a)
{
    return (int)h->n_kv * ((a.shared + a.heads - 1) / a.heads);
}

/* Of the tokens that scratch has room for: whole pieces if there are several, and no more than a grid takes. */
static int64_t tokens_at_once(uint64_t room, const struct attending &a)
{
    int64_t tokens = (int64_t)(room < MOST_Z ? room : (uint64_t)MOST_Z);
    if (tokens > a.tokens)
        tokens -= tokens % a.tokens;
    return tokens < a.n ? tokens : a.n;
}

static void attend_whole(const struct gpu *g, const struct gpu_heads *h, const struct attending &a)
{
    const struct room room = room_of(a);
    const dim3 grid(1, head_pieces(h, a), a.n);
    LAUNCH(attend_pieces, grid, dim3(ATTEND_THREADS), room.bytes, g->stream, a, room.staged);
}

static void attend_cut(const struct gpu *g, const struct gpu_batch *b, const struct gpu_heads *h,
                       const struct attending &a)
{
    const struct room room = room_of(a);
    const dim3 grid((unsigned)most_segments(h, a.tokens, b->most_positions), head_pieces(h, a), a.n);
    LAUNCH(score_segments, grid, dim3(ATTEND_THREADS), room.bytes, g->stream, a, room.staged);
    LAUNCH(mix_segments, grid, dim3(ATTEND_THREADS), room.bytes, g->stream, a, room.staged);
    LAUNCH(merge_segments, dim3(a.n_q, a.n), dim3(MERGE_THREADS), 0, g->stream, a);
}

void gpu_attend(const struct gpu *g, const struct gpu_batch *b, const struct gpu_heads *h, const float *q,
                void *scratch, uint32_t n_ctx, const struct acts *mixed, bool quantise)
{
    const uint64_t bytes = gpu_attention_scratch(h, b->n, n_ctx);
    const struct attending all = attending_of(b, h, q, mixed->f32, scratch, 0, b->n);
    int64_t at_once = tokens_at_once(bytes / token_scores(h, all.slots), all);
    const int64_t pieces = (at_once + all.tokens - 1) / all.tokens * head_pieces(h, all);
    const bool whole = all.slots <= SHORT_SLOTS || pieces >= g->n_sms;
    if (!whole)
        at_once = tokens_at_once(bytes / token_scratch(h, all.slots), all);
    for (int64_t t = 0; t < b->n; t += at_once) {
        const int64_t n = b->n - t < at_once ? b->n - t : at_once;
        const struct attending a = attending_of(b, h, q, mixed->f32, scratch, t, n);
        if (whole)
            attend_whole(g, h, a);
        else
            attend_cut(g, b, h, a);
    }
    if (quantise)
        gpu_quantize(g, mixed, b->n);
}
