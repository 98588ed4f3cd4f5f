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
    TILE = 8,           /* tokens of a tile */
    THREADS = 4 * LANES,
};

/* x of a step: of TILES tiles. */
template <enum dtype T, int TILES> struct step_x {
    static constexpr int tokens = TILE * TILES;
    static constexpr int parts = layout_t<T>::halves ? 2 : 1; /* of a block, with scales of their own */
    int2 code[STEP][tokens][4];         /* quads t and t + 4 beside each other */
    float scale[STEP][tokens];
    int start[STEP][parts][tokens];     /* of the sum: SUM_START and what the codes' offset takes from it */
    float scaled_sum[STEP][layout_t<T>::minima ? parts : 1][tokens];
};

/* What a thread carries of x from global memory into the next step: of each token 8 pieces of 16 codes, of each block
 * its act_block. */
template <int TILES> struct carried {
    static constexpr int pieces = TILE * TILES * STEP * 2, acts = TILE * TILES * STEP;
    int4 piece[(pieces + THREADS - 1) / THREADS], act[(acts + THREADS - 1) / THREADS];
};

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

template <enum dtype T, int TILES> DEVICE void put_piece(struct step_x<T, TILES> &x, int i, int4 v)
{
    int *to = &x.code[i / 2 % STEP][i / (STEP * 2)][0].x + i % 2;
    to[0] = v.x;
    to[2] = v.y;
    to[4] = v.z;
    to[6] = v.w;
}

template <enum dtype T, int TILES> DEVICE void put_act(struct step_x<T, TILES> &x, int i, int4 v)
{
    const int j = i % STEP, t = i / STEP;
    const struct act_block act = {__int_as_float(v.x), __int_as_float(v.y), v.z, v.w};
    x.scale[j][t] = act.scale;
    for (int h = 0; h < step_x<T, TILES>::parts; h++) {
        x.start[j][h][t] = start_of<T>(act, h);
        if constexpr (layout_t<T>::minima)
            x.scaled_sum[j][h][t] = scaled_sum_of<T>(act, h);
    }
}

template <enum dtype T, int TILES>
DEVICE struct tile get_tile(const struct step_x<T, TILES> &x, int j, int i, int g, int t)
{
    const int pair = 8 * i + 2 * t;
    struct tile to = {};
    to.code = x.code[j][8 * i + g][t];
    to.scale = *(const float2 *)&x.scale[j][pair];
    for (int h = 0; h < step_x<T, TILES>::parts; h++) {
        to.start[h] = *(const int2 *)&x.start[j][h][pair];
        if constexpr (layout_t<T>::minima)
            to.scaled_sum[h] = *(const float2 *)&x.scaled_sum[j][h][pair];
    }
    return to;
}

/* ---- sums ---- */

/* The sums of a lane: of what it holds of each tile. */
template <int TILES> struct held {
    float v[TILES][HELD];
};

/* Sums of segments in units. Unsigned, so that those of broken tokens may wrap. */
template <int TILES> struct held_units {
    unsigned long long v[TILES][HELD];
    uint32_t broken; /* bit 2 * tile + token: that one of the lane's */
};

template <int TILES> DEVICE void close_segment(struct held<TILES> &acc, struct held_units<TILES> &to)
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

template <int TILES>
DEVICE void pick_up(struct carried<TILES> &c, const struct product_work &w, int token, int step)
{
    const int thread = (int)threadIdx.x;
#pragma unroll
    for (int i = 0; i < c.pieces; i += THREADS)
        if (i + thread < c.pieces)
            c.piece[i / THREADS] = load_piece(w, token, step, i + thread);
#pragma unroll
    for (int i = 0; i < c.acts; i += THREADS)
        if (i + thread < c.acts)
            c.act[i / THREADS] = load_act_piece(w, token, step, i + thread);
}

template <enum dtype T, int TILES> DEVICE void put_down(const struct carried<TILES> &c, struct step_x<T, TILES> &x)
{
    const int thread = (int)threadIdx.x;
#pragma unroll
    for (int i = 0; i < c.pieces; i += THREADS)
        if (i + thread < c.pieces)
            put_piece<T, TILES>(x, i + thread, c.piece[i / THREADS]);
#pragma unroll
    for (int i = 0; i < c.acts; i += THREADS)
        if (i + thread < c.acts)
            put_act<T, TILES>(x, i + thread, c.act[i / THREADS]);
}

template <bool PARTIAL, int TILES>
DEVICE void store_held(const struct product_work &w, int group, int g, int token, const struct held<TILES> &acc,
                       const struct held_units<TILES> &units)
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
template <enum dtype T, bool PARTIAL, int TILES>
__global__ void __launch_bounds__(THREADS) product_mma(struct product_work w)
{
    static_assert(STEP * ACT_BLOCK == SUM_SEGMENT, "a step is a segment");
    __shared__ struct step_x<T, TILES> x[2];
    const int lane = (int)threadIdx.x % LANES, g = lane / 4, t = lane % 4;
    const int warp = (int)(blockIdx.x * (THREADS / LANES) + threadIdx.x / LANES), at = min(warp, w.groups - 1);
    const int token = (int)blockIdx.y * TILE * TILES;
    const uint8_t *group = group_data(w, at);
    struct fragment<T> fragments[STEP];
    struct carried<TILES> carried = {};
    struct held<TILES> acc = {}, a = {}, minima = {};
    struct held_units<TILES> units = {};
    uint32_t supers[2][2] = {};
    pick_up<TILES>(carried, w, token, 0);
#pragma unroll
    for (int j = 0; j < STEP; j++)
        if (j < w.blocks)
            load_fragment<T>(fragments[j], group + block_offset<T>(j), g, t);
    for (int b = 0, turn = 0; b < w.blocks; b += STEP, turn ^= 1) {
        put_down<T, TILES>(carried, x[turn]);
        __syncthreads();
        pick_up<TILES>(carried, w, token, b / STEP + 1);
        for (int h = 0; h < 2 && layout_t<T>::k; h++)
            load_supers<T>(group + (int64_t)(b / SUPER_BLOCKS) * block_t<T>::eight, g + 8 * h, supers[h]);
#pragma unroll
        for (int j = 0; j < STEP && b + j < w.blocks; j++) {
            const struct rows<T> rows = rows_of<T>(fragments[j], t);
#pragma unroll
            for (int i = 0; i < TILES; i++) {
                const struct tile tile = get_tile<T, TILES>(x[turn], j, i, g, t);
                add_tile<T>(rows, tile, layout_t<T>::k ? a.v[i] : acc.v[i], minima.v[i]);
            }
        }
#pragma unroll
        for (int j = 0; j < STEP; j++) /* all at once: a warp waits for all of its loads, whichever it needs */
            if (b + STEP + j < w.blocks)
                load_fragment<T>(fragments[j], group + block_offset<T>(b + STEP + j), g, t);
#pragma unroll
        for (int i = 0; i < TILES && layout_t<T>::k; i++)
            close_half<T>(supers, a.v[i], minima.v[i], acc.v[i]);
        if constexpr (PARTIAL)
            close_segment<TILES>(acc, units);
    }
    if (warp < w.groups)
        store_held<PARTIAL, TILES>(w, at, g, token + 2 * t, acc, units);
}

enum { WARPS = THREADS / LANES };

template <enum dtype T, bool PARTIAL, int TILES> void launch(const struct gpu *g, const struct product_work &w)
{
    const dim3 grid((unsigned)((w.groups + WARPS - 1) / WARPS), (unsigned)((w.n + TILE * TILES - 1) / (TILE * TILES)));
    auto *kernel = product_mma<T, PARTIAL, TILES>;
    LAUNCH(kernel, grid, dim3(THREADS), 0, g->stream, w);
}

/* Tiles of many tokens read weights less often, if there are enough of them for all multiprocessors. */
template <enum dtype T, bool PARTIAL> void launch_tiles(const struct gpu *g, const struct product_work &w)
{
    const int64_t blocks = (int64_t)((w.groups + WARPS - 1) / WARPS) * ((w.n + 4 * TILE - 1) / (4 * TILE));
    if (blocks >= g->n_sms)
        launch<T, PARTIAL, 4>(g, w);
    else
        launch<T, PARTIAL, 1>(g, w);
}

}

void products_mma(const struct gpu *g, enum dtype type, const struct product_work &w, bool partial)
{
    with_type(type, [&](auto t) {
        constexpr enum dtype T = decltype(t)::value;
        if (partial)
            launch_tiles<T, true>(g, w);
        else
            launch_tiles<T, false>(g, w);
    });
}
