/* Products of many tokens by the tensor cores. A warp has a group of rows and a tile of tokens, and its lanes have the
 * ordered sums of what they hold of the result.
 *
 * A step is 4 blocks, which are half a super-block and a segment. What the warps of a thread block read of x in a step
 * lies in shared memory, in one of two halves by turns, while the next is on its way. */
#include "kernels/cuda/products_mma.cuh"
#include "kernels/cuda/products_units.cuh"

namespace {

enum {
    STEP = HALF_BLOCKS, /* blocks of a step */
    TILES = 4,          /* tiles of 8 tokens that a warp has */
    TOKENS = 8 * TILES,
    THREADS = 4 * LANES,
};

/* x of a step. */
template <enum dtype T> struct step_x {
    static constexpr int parts = layout_t<T>::halves ? 2 : 1; /* of a block, with scales of their own */
    int2 code[STEP][TOKENS][4];         /* quads t and t + 4 beside each other */
    float scale[STEP][TOKENS];
    int start[STEP][parts][TOKENS];     /* of the sum: SUM_START and what the codes' offset takes from it */
    float scaled_sum[STEP][layout_t<T>::minima ? parts : 1][TOKENS];
};

/* What a thread carries of x from global memory into a step: of each token 8 pieces of 16 codes, of each block its
 * act_block. */
enum { PIECES = TOKENS * STEP * 2, BLOCKS_OF_X = TOKENS * STEP };

/* Piece i: the token's codes follow each other. */
DEVICE int4 load_piece(const struct product_work &w, int token, int step, int i)
{
    const int at = token + i / (STEP * 2), b = step * STEP + i / 2 % STEP;
    if (at >= w.n || b >= w.blocks)
        return make_int4(0, 0, 0, 0);
    return __ldg((const int4 *)(w.codes + (int64_t)at * w.cols + b * ACT_BLOCK) + i % 2);
}

DEVICE int4 load_act_piece(const struct product_work &w, int token, int step, int i)
{
    const int at = token + i / STEP, b = step * STEP + i % STEP;
    if (at >= w.n || b >= w.blocks)
        return make_int4(0, 0, 0, 0);
    return __ldg((const int4 *)(w.acts + (int64_t)at * w.blocks + b));
}

template <enum dtype T> DEVICE void put_piece(struct step_x<T> &x, int i, int4 v)
{
    int *to = &x.code[i / 2 % STEP][i / (STEP * 2)][0].x + i % 2;
    to[0] = v.x;
    to[2] = v.y;
    to[4] = v.z;
    to[6] = v.w;
}

template <enum dtype T> DEVICE void put_act(struct step_x<T> &x, int i, int4 v)
{
    const int j = i % STEP, t = i / STEP;
    const struct act_block act = {__int_as_float(v.x), __int_as_float(v.y), v.z, v.w};
    x.scale[j][t] = act.scale;
    for (int h = 0; h < step_x<T>::parts; h++) {
        x.start[j][h][t] = start_of<T>(act, h);
        if constexpr (layout_t<T>::minima)
            x.scaled_sum[j][h][t] = scaled_sum_of<T>(act, h);
    }
}

template <enum dtype T> DEVICE struct tile get_tile(const struct step_x<T> &x, int j, int i, int g, int t)
{
    const int pair = 8 * i + 2 * t;
    struct tile to = {};
    to.code = x.code[j][8 * i + g][t];
    to.scale = *(const float2 *)&x.scale[j][pair];
    for (int h = 0; h < step_x<T>::parts; h++) {
        to.start[h] = *(const int2 *)&x.start[j][h][pair];
        if constexpr (layout_t<T>::minima)
            to.scaled_sum[h] = *(const float2 *)&x.scaled_sum[j][h][pair];
    }
    return to;
}

/* ---- sums ---- */

/* The sums of a lane: of what it holds of each tile. */
struct held {
    float v[TILES][HELD];
};

/* Sums of segments in units. Unsigned, so that those of broken tokens may wrap. */
struct held_units {
    unsigned long long v[TILES][HELD];
    uint32_t broken; /* bit 2 * tile + token: that one of the lane's */
};

DEVICE void close_segment(struct held &acc, struct held_units &to)
{
#pragma unroll
    for (int i = 0; i < TILES; i++) {
#pragma unroll
        for (int e = 0; e < HELD; e++) {
            bool broken = false;
            to.v[i][e] += (unsigned long long)gpu_units(acc.v[i][e], &broken);
            to.broken |= (uint32_t)broken << (2 * i + e % 2);
            acc.v[i][e] = 0;
        }
    }
}

DEVICE void store_units(const struct product_work &w, int64_t token, int row, unsigned long long sum, bool broken)
{
    long long *to = &w.to.units[token * w.part[0].rows + row];
    note_broken(w, (int)token, broken);
    if (token < w.n && row < w.part[0].rows)
        *to = (long long)((w.add ? (unsigned long long)*to : 0) + sum);
}

/* ---- the kernel ---- */

/* What a thread carries of x to the next step. */
struct carried {
    int4 piece[PIECES / THREADS], act[BLOCKS_OF_X / THREADS];
};

DEVICE void pick_up(struct carried &c, const struct product_work &w, int token, int step)
{
#pragma unroll
    for (int i = 0; i < PIECES / THREADS; i++)
        c.piece[i] = load_piece(w, token, step, i * THREADS + (int)threadIdx.x);
#pragma unroll
    for (int i = 0; i < BLOCKS_OF_X / THREADS; i++)
        c.act[i] = load_act_piece(w, token, step, i * THREADS + (int)threadIdx.x);
}

template <enum dtype T> DEVICE void put_down(const struct carried &c, struct step_x<T> &x)
{
#pragma unroll
    for (int i = 0; i < PIECES / THREADS; i++)
        put_piece<T>(x, i * THREADS + (int)threadIdx.x, c.piece[i]);
#pragma unroll
    for (int i = 0; i < BLOCKS_OF_X / THREADS; i++)
        put_act<T>(x, i * THREADS + (int)threadIdx.x, c.act[i]);
}

template <bool PARTIAL>
DEVICE void store_held(const struct product_work &w, int group, int g, int token, const struct held &acc,
                       const struct held_units &units)
{
#pragma unroll
    for (int i = 0; i < TILES; i++) {
#pragma unroll
        for (int e = 0; e < HELD; e++) {
            const int r = g + 8 * (e / 2), at = token + 8 * i + e % 2;
            if constexpr (PARTIAL)
                store_units(w, at, group * ROW_GROUP + r, units.v[i][e], units.broken >> (2 * i + e % 2) & 1);
            else
                store_y(w, group, r, at, acc.v[i][e]);
        }
    }
}

/* PARTIAL: in segments of SUM_SEGMENT columns. */
template <enum dtype T, bool PARTIAL> __global__ void __launch_bounds__(THREADS) product_mma(struct product_work w)
{
    static_assert(STEP * ACT_BLOCK == SUM_SEGMENT, "a step is a segment");
    __shared__ struct step_x<T> x[2];
    const int lane = (int)threadIdx.x % LANES, g = lane / 4, t = lane % 4;
    const int warp = (int)(blockIdx.x * (THREADS / LANES) + threadIdx.x / LANES), at = min(warp, w.groups - 1);
    const int token = (int)blockIdx.y * TOKENS;
    const uint8_t *group = group_data(w, at);
    struct fragment<T> fragments[STEP];
    struct carried carried;
    struct held acc = {}, a = {}, minima = {};
    struct held_units units = {};
    uint32_t supers[2][2] = {};
    pick_up(carried, w, token, 0);
#pragma unroll
    for (int j = 0; j < STEP; j++)
        if (j < w.blocks)
            load_fragment<T>(fragments[j], group + block_offset<T>(j), g, t);
    for (int b = 0, turn = 0; b < w.blocks; b += STEP, turn ^= 1) {
        put_down<T>(carried, x[turn]);
        __syncthreads();
        pick_up(carried, w, token, b / STEP + 1);
        for (int h = 0; h < 2; h++)
            load_supers<T>(group, b, w.blocks, g + 8 * h, supers[h]);
#pragma unroll
        for (int j = 0; j < STEP && b + j < w.blocks; j++) {
            const struct rows<T> rows = rows_of<T>(fragments[j], t);
#pragma unroll
            for (int i = 0; i < TILES; i++)
                add_tile<T>(rows, get_tile<T>(x[turn], j, i, g, t), layout_t<T>::k ? a.v[i] : acc.v[i], minima.v[i]);
            if (b + STEP + j < w.blocks)
                load_fragment<T>(fragments[j], group + block_offset<T>(b + STEP + j), g, t);
        }
#pragma unroll
        for (int i = 0; i < TILES && layout_t<T>::k; i++)
            close_half<T>(supers, a.v[i], minima.v[i], acc.v[i]);
        if constexpr (PARTIAL)
            close_segment(acc, units);
    }
    if (warp < w.groups)
        store_held<PARTIAL>(w, at, g, token + 2 * t, acc, units);
}

template <enum dtype T, bool PARTIAL> void launch(const struct gpu *g, const struct product_work &w)
{
    const unsigned warps = THREADS / LANES;
    const dim3 grid(((unsigned)w.groups + warps - 1) / warps, (unsigned)((w.n + TOKENS - 1) / TOKENS));
    auto *kernel = product_mma<T, PARTIAL>;
    LAUNCH(kernel, grid, dim3(THREADS), 0, g->stream, w);
}

}

void products_mma(const struct gpu *g, enum dtype type, const struct product_work &w, bool partial)
{
    with_type(type, [&](auto t) {
        constexpr enum dtype T = decltype(t)::value;
        if (partial)
            launch<T, true>(g, w);
        else
            launch<T, false>(g, w);
    });
}
