/* The estimates of all rows (kernels.h, estimate_rows). A half-warp takes a few rows: its lanes are the sum's lanes,
 * and what a lane reads of x serves all of them, what it reads of a row serves several tokens. Rows are brought into
 * shared memory, of most models the whole of a warp's at once: they are on their way while the launch before ends. */
#include "kernels/cuda/neuron_rows.cuh"
#include "kernels/cuda/neurons.h"
#include "kernels/cuda/shares.cuh"

namespace {

enum {
    BLOCK_ROWS = 16,  /* of a thread block */
    STAGES = 2,       /* that a warp has in shared memory or on their way there */
    STAGE_CHUNKS = 4, /* of each row */
    PIECE = 16,       /* bytes that a lane brings at once */
    RESIDENT = 6,     /* thread blocks of a multiprocessor; of a launch for shares, which needs more registers: */
    SHARES_RESIDENT = 4
};

/* How the rows of a thread block are shared out: a half-warp has `rows`. Nobody but the warp touches what it brings. */
template <class R, int TOKENS> struct estimate_t {
    static constexpr int rows = TOKENS == 1 ? 2 : 4, warp_rows = LANES / LANE_BLOCKS * rows;
    static constexpr int warps = BLOCK_ROWS / warp_rows, threads = warps * LANES;
    static constexpr int row_bytes = STAGE_CHUNKS * R::chunk_bytes; /* of a stage */
    static_assert(row_bytes % PIECE == 0, "stages lie on pieces, as rows do");
    struct __align__(16) stage {
        uint8_t row[warp_rows][row_bytes];
    };
};

/* Rows of a type in planes, where it can have some. */
template <enum dtype T> using planes_t = row_t<T, row_t<T, false>::can_have_planes>;

/* What a block weighs in an estimate: its top codes, D and M of its halves. */
template <class R> struct estimate_block {
    uint32_t quad[8];
    float d[2], m[2];
};

template <class R>
__device__ __forceinline__ struct estimate_block<R> estimate_of(const struct gpu_book &book,
                                                                const struct row_block<R> &w)
{
    struct estimate_block<R> e;
    codes_of<R, false>(book, w, e.quad);
    if constexpr (!R::k) {
        e.d[0] = f32_of_half_bits((uint16_t)w.d);
        if constexpr (R::minima)
            e.m[0] = f32_of_half_bits((uint16_t)w.m);
    } else {
#pragma unroll
        for (int h = 0; h < (R::halves ? 2 : 1); h++) {
            e.d[h] = __fmul_rn(f32_of_half_bits((uint16_t)w.super_d), (float)k_scale_of(w, h));
            if constexpr (R::minima)
                e.m[h] = -__fmul_rn(f32_of_half_bits((uint16_t)w.super_m), (float)k_min_of(w, h));
        }
    }
    return e;
}

/* sum + a block; each code stands for the middle of those that share its top bits. */
template <class R>
__device__ __forceinline__ float add_block(const struct estimate_block<R> &e, const struct x_block &x, float sum)
{
    constexpr int middle = (1 << R::rest_bits) - 1 - 2 * R::offset; /* twice */
#pragma unroll
    for (int h = 0; h < (R::halves ? 2 : 1); h++) {
        const int dot = dot_codes<R>(e.quad, x, h, 0) * (2 << R::rest_bits) - middle * minus_sum_of<R>(x.s, h);
        sum = __fmaf_rn((float)dot, __fmul_rn(e.d[h], __fmul_rn(0.5f, x.s.scale)), sum);
        if constexpr (R::minima)
            sum = __fmaf_rn(e.m[h], scaled_sum_of<R>(x.s, h), sum);
    }
    return sum;
}

__device__ __forceinline__ float sum_of_lanes(float sum)
{
#pragma unroll
    for (int n = SUM_LANES / 2; n > 0; n /= 2)
        sum = __fadd_rn(sum, __shfl_xor_sync(FULL_MASK, sum, n));
    return sum;
}

/* Begins to bring STAGE_CHUNKS chunks from chunk k on of the warp's rows: nothing past their end; for those past the
 * last row, the last. */
template <class R, int TOKENS>
__device__ __forceinline__ void bring_stage(const struct factors &f, int rows, int row, int k,
                                            typename estimate_t<R, TOKENS>::stage &to)
{
    using E = estimate_t<R, TOKENS>;
    constexpr int pieces = E::row_bytes / PIECE;
    const int64_t first = (int64_t)k * R::chunk_bytes, left = f.top_bytes - first;
#pragma unroll
    for (int begin = 0; begin < E::warp_rows * pieces; begin += LANES) {
        const int i = begin + (int)threadIdx.x % LANES, r = i / pieces, at = i % pieces * PIECE;
        if (r < E::warp_rows && at < left)
            gpu_bring((int4 *)&to.row[r][at],
                      (const int4 *)(f.top + min(row + r, rows - 1) * f.top_bytes + first + at));
    }
}

/* Sums of a lane, for tokens t0 ... of its half-warp's rows. */
template <class R, int TOKENS> struct estimates {
    float of[estimate_t<R, TOKENS>::rows][TOKENS];
};

/* sums + a chunk at `at` of the first row; the lane's block is the b-th, n are the chunk's. */
template <class R, int TOKENS, bool FULL>
__device__ __forceinline__ void add_chunk(const struct factors &f, const uint8_t *at, int b, int n, int t0, int tokens,
                                          struct estimates<R, TOKENS> &sum)
{
    using E = estimate_t<R, TOKENS>;
    const int64_t nb = f.cols / ACT_BLOCK;
    struct estimate_block<R> e[E::rows];
#pragma unroll
    for (int r = 0; r < E::rows; r++) {
        struct row_block<R> w;
        load_of_chunk<R, false, FULL, true>(at + r * E::row_bytes, NULL, 0, b % LANE_BLOCKS, n, &w);
        e[r] = estimate_of(f.book, w);
    }
#pragma unroll
    for (int t = 0; t < TOKENS; t++) {
        if (t >= tokens)
            break;
        const struct x_block x = load_x(f, (t0 + t) * nb + b);
#pragma unroll
        for (int r = 0; r < E::rows; r++)
            sum.of[r][t] = add_block(e[r], x, sum.of[r][t]);
    }
}

/* sums + what lies in a stage, chunks from k on. */
template <class R, int TOKENS>
__device__ __forceinline__ void add_stage(const struct factors &f, const uint8_t *at, int k, int t0, int tokens,
                                          struct estimates<R, TOKENS> &sum)
{
    const int lane = threadIdx.x % LANE_BLOCKS, nb = f.cols / ACT_BLOCK, b = k * LANE_BLOCKS + lane;
    if ((k + STAGE_CHUNKS) * LANE_BLOCKS <= nb) {
#pragma unroll
        for (int c = 0; c < STAGE_CHUNKS; c++)
            add_chunk<R, TOKENS, true>(f, at + c * R::chunk_bytes, b + c * LANE_BLOCKS, LANE_BLOCKS, t0, tokens, sum);
        return;
    }
#pragma unroll 1
    for (int c = 0; b + c * LANE_BLOCKS < nb; c++)
        add_chunk<R, TOKENS, false>(f, at + c * R::chunk_bytes, b + c * LANE_BLOCKS,
                                    min(nb - (k + c) * LANE_BLOCKS, (int)LANE_BLOCKS), t0, tokens, sum);
}

/* Adds the lanes up. */
template <class R, int TOKENS>
__device__ __forceinline__ void store_estimates(const struct factors &f, int rows, int row, int t0, int tokens,
                                                const struct estimates<R, TOKENS> &sum, float *y, int64_t stride)
{
    const int lane = threadIdx.x % LANE_BLOCKS, nb = f.cols / ACT_BLOCK;
    const bool absent = nb % LANE_BLOCKS && lane >= nb % LANE_BLOCKS;
#pragma unroll
    for (int r = 0; r < estimate_t<R, TOKENS>::rows; r++)
#pragma unroll
        for (int t = 0; t < TOKENS; t++) {
            const float of_lane = sum.of[r][t];
            const float all = sum_of_lanes(absent ? __fadd_rn(of_lane, 0.0f) : of_lane); /* -0 becomes +0 */
            if (lane == 0 && t < tokens && row + r < rows)
                y[(t0 + t) * stride + row + r] = all;
        }
}

/* Of a launch for shares: what those read. */
struct share_estimates {
    struct gpu_shares shares;
    struct acts gathered;
    bool ups;
};

/* What the launch reads and makes becomes that of share blockIdx.y. False: it has no such rows of this type. */
template <enum dtype T>
__device__ __forceinline__ bool take_share(const struct share_estimates &w, struct factors &f, int &rows, int &n,
                                           float *&y, int64_t &stride)
{
    struct gpu_share s;
    if (!share_at(w.shares.of, w.shares.n, (int)blockIdx.y, &s))
        return false;
    const struct gpu_set &set = w.shares.sets[s.set];
    const struct neuron_rows &m = w.ups ? set.up_rows : set.gate_rows;
    f.top = m.top;
    f.top_bytes = (int64_t)m.top_bytes;
    if (!s.whole) {
        f.codes = w.gathered.codes + (int64_t)s.first * f.cols;
        f.blocks = w.gathered.blocks + (int64_t)s.first * f.cols / ACT_BLOCK;
    }
    rows = set.n;
    n = (int)s.n;
    y += s.neurons;
    stride = set.n;
    return m.type == T && (int)blockIdx.x * BLOCK_ROWS < rows;
}

/* Tokens by TOKENS, for each of which a warp goes over its rows from the start. */
template <enum dtype T, int TOKENS, bool SHARES>
__global__ void __launch_bounds__(estimate_t<planes_t<T>, TOKENS>::threads, SHARES ? SHARES_RESIDENT : RESIDENT)
estimate_rows(struct factors f, int rows, int n, float *y, int64_t stride, struct share_estimates shares)
{
    using R = planes_t<T>;
    using E = estimate_t<R, TOKENS>;
    __shared__ typename E::stage stages[E::warps][STAGES];
    if constexpr (SHARES) {
        gpu_begin();
        if (!take_share<T>(shares, f, rows, n, y, stride))
            return;
    }
    const int warp = (int)threadIdx.x / LANES, half = (int)threadIdx.x % LANES / LANE_BLOCKS * E::rows;
    const int row = ((int)blockIdx.x * E::warps + warp) * E::warp_rows;
    const int chunks = (f.cols + LANE_COLS - 1) / LANE_COLS;
    int left = (n + TOKENS - 1) / TOKENS * ((chunks + STAGE_CHUNKS - 1) / STAGE_CHUNKS), next = 0, stage = 0;
    const auto bring_next = [&](struct E::stage &to) {
        if (left-- > 0)
            bring_stage<R, TOKENS>(f, rows, row, next, to);
        gpu_bring_batch();
        next = next + STAGE_CHUNKS < chunks ? next + STAGE_CHUNKS : 0;
    };
    for (int i = 0; i < STAGES; i++)
        bring_next(stages[warp][i]);
    if constexpr (!SHARES)
        gpu_begin();
    for (int t = 0; t < n; t += TOKENS) {
        const int tokens = min(n - t, TOKENS);
        struct estimates<R, TOKENS> sum = {};
        for (int k = 0; k < chunks; k += STAGE_CHUNKS, stage = (stage + 1) % STAGES) {
            gpu_brought_but<STAGES - 1>();
            __syncwarp(FULL_MASK);
            add_stage<R, TOKENS>(f, stages[warp][stage].row[half], k, t, tokens, sum);
            __syncwarp(FULL_MASK);
            bring_next(stages[warp][stage]);
        }
        store_estimates<R, TOKENS>(f, rows, row + half, t, tokens, sum, y, stride);
    }
}

template <enum dtype T, int TOKENS, bool SHARES>
void launch(const struct gpu *g, const struct neuron_rows *m, const struct acts *x, int64_t n, float *y, int64_t stride,
            const struct share_estimates &shares)
{
    auto *kernel = estimate_rows<T, TOKENS, SHARES>;
    const dim3 grid((unsigned)((m->rows + BLOCK_ROWS - 1) / BLOCK_ROWS), SHARES ? (unsigned)shares.shares.most : 1);
    LAUNCH(kernel, grid, (estimate_t<planes_t<T>, TOKENS>::threads), 0, g, factors_of(m, x), (int)m->rows, (int)n, y,
           stride, shares);
}

template <bool SHARES>
void estimate(const struct gpu *g, const struct neuron_rows *m, const struct acts *x, int64_t n, float *y,
              int64_t stride, const struct share_estimates &shares)
{
    with_type(m->type, [&](auto t) {
        constexpr enum dtype T = decltype(t)::value;
        if constexpr (planes_t<T>::planes) {
            if (n == 1)
                launch<T, 1, SHARES>(g, m, x, n, y, stride, shares);
            else
                launch<T, 4, SHARES>(g, m, x, n, y, stride, shares);
        }
    });
}

}

void gpu_estimate_rows(const struct gpu *g, const struct neuron_rows *m, const struct acts *x, int64_t n, float *y,
                       int64_t y_stride)
{
    if (m->rows && n)
        estimate<false>(g, m, x, n, y, y_stride, {});
}

void gpu_estimate_shares(const struct gpu *g, const struct gpu_shares *s, enum dtype type, bool ups,
                         const struct acts *x, const struct acts *gathered, int64_t n, float *to)
{
    struct neuron_rows m = {};
    m.type = type;
    m.rows = s->rows;
    m.cols = x->cols;
    if (s->rows && s->most && n)
        estimate<true>(g, &m, x, n, to, 0, {*s, *gathered, ups});
}
