/* Attention by pieces: a thread block takes a piece from its scores to the end. */
#include <math.h>

#include "kernels/cuda/attention_parts.cuh"

/* Asks for a piece's values, if they are few, so that they are near when its scores are there. */
static __device__ __forceinline__ void ask_for_values(const struct attending &a, const struct piece &p)
{
    if (p.end - p.begin > SHORT_SLOTS * ATTN_SEGMENT)
        return;
    for (int i = p.begin / KV_PAGE; i * KV_PAGE < p.end; i++) {
        const uint8_t *page = (const uint8_t *)page_of(a, p, a.v, a.value, i);
        for (int line = threadIdx.x; line < a.value * KV_PAGE * 2 / LINE; line += ATTEND_THREADS)
            gpu_prefetch(page + line * LINE);
    }
}

/* The scores of all segments; then the rows' largest, where the stage was. */
template <int R>
static __device__ __forceinline__ void score_all(const struct attending &a, const struct piece &p, uint4 *stage,
                                                 float *q)
{
    const int first = threadIdx.x / LANES * R;
    float most[R];
#pragma unroll
    for (int r = 0; r < R; r++)
        most[r] = -INFINITY;
    stage_queries(a, p, WARPS * R, q);
    for (int s = p.begin / ATTN_SEGMENT; s * ATTN_SEGMENT < p.end; s++)
        score_segment<R>(a, p, s, stage, q, most);
#pragma unroll
    for (int r = 0; r < R; r++) {
        const float all = warp_max(most[r]);
        if (threadIdx.x % LANES == 0 && first + r < p.rows)
            ((float *)stage)[first + r] = all;
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
            const float sum = weigh_row(a, row_of(a, p, row), segment, [&] { return mine.most[i]; },
                                        w + row * ATTN_SEGMENT);
            mine.sum[i] = __fadd_rn(mine.sum[i], sum);
        } else if (row < rows) {
            weigh_none(w + row * ATTN_SEGMENT);
        }
    }
}

/* 1 / the sum of each row's weights, into inverse [rows]. */
static __device__ __forceinline__ void invert_sums(const struct attending &a, const struct piece &p,
                                                   const struct warp_rows &mine, float *inverse)
{
#pragma unroll
    for (int i = 0; i < MOST_ROWS / WARPS; i++) {
        const int row = threadIdx.x / LANES + i * WARPS;
        const float rest = row < p.rows ? rest_of(a, head_of(p, row), mine.most[i]) : 0.0f;
        const float all = inverse_of(mine.sum[i], rest);
        if (threadIdx.x % LANES == 0 && row < p.rows)
            inverse[row] = all;
    }
}

/* The mix of all segments, into a.mixed. A row that a segment gives nothing adds +0: no total is -0, none changes. */
template <int M>
static __device__ __forceinline__ void mix_all(const struct attending &a, const struct piece &p, uint4 *stage, float *w,
                                               struct warp_rows &mine)
{
    float total[M][FOUR] = {};
    for (int s = p.begin / ATTN_SEGMENT; s * ATTN_SEGMENT < p.end; s++) {
        float part[M][FOUR] = {};
        mix_segment<M>(a, p, s, stage, w, [&] { weigh_rows(a, p, s, weighed_rows(p, M), w, mine); }, part);
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
            for (int j = 0; j < FOUR; j++)
                total[m][j] = __fadd_rn(total[m][j], part[m][j]);
    }
    invert_sums(a, p, mine, w);
    __syncthreads();
    finish_rows<M>(a, p, total, w, (float4 *)stage);
}

static __global__ void __launch_bounds__(ATTEND_THREADS, 2) attend_pieces(struct attending a)
{
    gpu_begin();
    SHARED_BYTES(shared);
    uint4 *stage = (uint4 *)shared;
    float *rows = (float *)(shared + a.staged);
    struct piece p;
    if (!find_piece(a, &p))
        return;
    ask_for_values(a, p);
    with_rows<MANY>(p.rows, WARPS, [&](auto each) { score_all<each.rows>(a, p, stage, rows); });
    __syncthreads();

    struct warp_rows mine;
#pragma unroll
    for (int i = 0; i < MOST_ROWS / WARPS; i++) {
        const int row = smaller(threadIdx.x / LANES + i * WARPS, p.rows - 1);
        mine.most[i] = largest_of(a, head_of(p, row), ((const float *)stage)[row]);
        mine.sum[i] = 0;
    }
    __syncthreads();
    with_rows<MANY>(p.rows, mix_groups(a.value), [&](auto each) { mix_all<each.rows>(a, p, stage, rows, mine); });
}

void attend_whole(const struct gpu *g, const struct attending &a)
{
    const dim3 grid(1, a.pieces, a.n);
    LAUNCH(attend_pieces, grid, dim3(ATTEND_THREADS), a.room, g, a);
}
