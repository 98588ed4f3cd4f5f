/* Products of several tokens by the tensor cores. A warp has a group of rows and a tile of tokens or more, and its
 * lanes have the ordered sums of what they hold of the result; the warps of a thread block have the same tokens.
 *
 * A step is 4 blocks, which are half a super-block and a segment. Steps are brought into shared memory some ahead of
 * the one that is multiplied: weights by the warp that they are for, x by all of them. Of a partial product the steps
 * may be parted among thread blocks, which add their units. */
#include "kernels/cuda/products_mma.cuh"
#include "kernels/cuda/products_units.cuh"

namespace {

enum {
    STEP = HALF_BLOCKS, /* blocks of a step */
    TILE = 8,           /* tokens of a tile */
    WARPS = 4,
    THREADS = WARPS * LANES,
    PIECE = sizeof(int4),
    CODE_PIECES = STEP * ACT_BLOCK / PIECE, /* of a token's codes in a step */
    ROOM = 45 * 1024,                       /* bytes of steps: static shared memory has 48 KiB */
    AHEAD_FEW = 8,                          /* steps under way of a tile, where they have room, */
    MANY = 4,                               /* tiles of a thread block that has several, */
    AHEAD_MANY = 3,                         /* and the steps that are under way there */
    LEAST_STEPS = 2,                        /* of a part of a partial product */
};

/* A step. Tokens are apart so that lanes meet different banks. */
template <enum dtype T, int TILES> struct step {
    using l = layout_t<T>;
    static constexpr int tokens = TILE * TILES;
    /* Of an act_block scale, and what of its other three words the type reads. */
    static constexpr bool sums = l::offset != 0 || (l::minima && l::halves);
    static constexpr int words = l::halves ? 3 : 2;
    static DEVICE int word_of(int i) { return i == 0 ? 0 : i == 2 ? 3 : sums ? 2 : 1; }
    static constexpr int weight_bytes = l::super_bytes + STEP * block_t<T>::bytes;
    alignas(PIECE) uint8_t weights[WARPS][weight_bytes]; /* supers, then blocks */
    alignas(PIECE) int8_t codes[tokens][STEP * ACT_BLOCK + PIECE];
    alignas(PIECE) uint32_t acts[words][STEP][tokens];
};

template <enum dtype T, int TILES> struct under_way {
    static constexpr int fit = ROOM / (int)sizeof(struct step<T, TILES>), most = TILES == 1 ? AHEAD_FEW : AHEAD_MANY;
    static constexpr int steps = fit < most ? fit : most;
};

/* ---- bringing ---- */

/* Blocks b .. b + 3 of a warp's group, or those of them that there are, and their super-block's scales. */
template <enum dtype T> DEVICE void bring_weights(uint8_t *to, const uint8_t *group, int b, int blocks)
{
    using B = block_t<T>;
    const int lane = (int)threadIdx.x % LANES, bytes = min((int)STEP, blocks - b) * B::bytes;
    const uint8_t *from = group + block_offset<T>(b);
    if (B::k && lane < B::super_bytes / PIECE)
        gpu_bring((int4 *)to + lane, (const int4 *)(group + (int64_t)(b / SUPER_BLOCKS) * B::eight) + lane);
#pragma unroll
    for (int i = lane * PIECE; i < STEP * B::bytes; i += LANES * PIECE)
        if (i < bytes)
            gpu_bring((int4 *)(to + B::super_bytes + i), (const int4 *)(from + i));
}

/* Token i of TOKENS that a thread block has. Past the last one it is taken again. */
template <int TOKENS> DEVICE int64_t token_at(const struct product_work &w, int i)
{
    return min((int)blockIdx.y * TOKENS + i, w.n - 1);
}

/* What all threads bring of x. */
template <enum dtype T, int TILES> DEVICE void bring_x(struct step<T, TILES> &to, const struct product_work &w, int b)
{
    using S = struct step<T, TILES>;
    constexpr int codes = S::tokens * CODE_PIECES, acts = S::tokens * S::words * STEP;
    const int thread = (int)threadIdx.x;
#pragma unroll
    for (int i = 0; i < codes; i += THREADS) {
        const int piece = (i + thread) % CODE_PIECES, token = (i + thread) / CODE_PIECES;
        if (i + thread < codes && b + piece * PIECE / ACT_BLOCK < w.blocks)
            gpu_bring((int4 *)&to.codes[token][piece * PIECE],
                      (const int4 *)(w.codes + token_at<S::tokens>(w, token) * w.cols + b * ACT_BLOCK) + piece);
    }
#pragma unroll
    for (int i = 0; i < acts; i += THREADS) {
        const int j = (i + thread) % STEP, row = (i + thread) / STEP, word = row % S::words, token = row / S::words;
        if (i + thread < acts && b + j < w.blocks)
            gpu_bring(&to.acts[word][j][token],
                      (const uint32_t *)(w.acts + token_at<S::tokens>(w, token) * w.blocks + b + j) + S::word_of(word));
    }
}

template <enum dtype T, int TILES>
DEVICE void bring(struct step<T, TILES> &to, const struct product_work &w, const uint8_t *weights, int i)
{
    bring_weights<T>(to.weights[threadIdx.x / LANES], weights, i * STEP, w.blocks);
    bring_x<T, TILES>(to, w, i * STEP);
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

/* Thread blocks that have parts of the steps find their sums begun. */
DEVICE void store_units(const struct product_work &w, int64_t token, int row, unsigned long long sum, bool broken)
{
    unsigned long long *to = (unsigned long long *)&w.to.units[token * w.part[0].rows + row];
    note_broken(w, (int)token, broken);
    if (token >= w.n || row >= w.part[0].rows)
        return;
    if (gridDim.z > 1)
        atomicAdd(to, sum);
    else
        *to = (w.add ? *to : 0) + sum;
}

template <bool PARTIAL, int TILES>
DEVICE void store_held(const struct product_work &w, int group, int g, int token, const struct held<TILES> &acc,
                       const struct held_units<TILES> &units)
{
#pragma unroll
    for (int i = 0; i < TILES; i++) {
#pragma unroll
        for (int e = 0; e < HELD; e++) {
            const int r = 2 * g + e / 2, at = token + 8 * i + e % 2;
            if constexpr (PARTIAL)
                store_units(w, at, group * ROW_GROUP + r, units.v[i][e], units.broken >> (2 * i + e % 2) & 1);
            else
                store_y(w, group, r, at, acc.v[i][e]);
        }
    }
}

/* ---- the kernel ---- */

/* Block j of a step of x, for a lane: of tile i. */
template <enum dtype T, int TILES>
DEVICE struct tile get_tile(const struct step<T, TILES> &x, int j, int i, int g, int t)
{
    using S = struct step<T, TILES>;
    const int pair = 8 * i + 2 * t;
    const int8_t *code = &x.codes[8 * i + g][j * ACT_BLOCK + 4 * t];
    uint2 act[S::words];
    struct tile to = {};
    to.code = make_int2(*(const int *)code, *(const int *)(code + ACT_BLOCK / 2));
#pragma unroll
    for (int k = 0; k < S::words; k++)
        act[k] = *(const uint2 *)&x.acts[k][j][pair];
    struct act_block first = {__uint_as_float(act[0].x)}, second = {__uint_as_float(act[0].y)};
    if constexpr (S::sums) {
        first.minus_sum = (int)act[1].x;
        second.minus_sum = (int)act[1].y;
        first.minus_sum_low = (int)act[S::words - 1].x; /* read of types with halves */
        second.minus_sum_low = (int)act[S::words - 1].y;
    } else {
        first.scaled_sum = __uint_as_float(act[1].x);
        second.scaled_sum = __uint_as_float(act[1].y);
    }
    set_tile<T>(to, first, second);
    return to;
}

template <enum dtype T, int TILES>
DEVICE void multiply_block(const struct step<T, TILES> &x, const uint8_t *weights, int j, struct held<TILES> &sums,
                           struct held<TILES> &minima)
{
    const int g = (int)threadIdx.x % LANES / 4, t = (int)threadIdx.x % 4;
    struct fragment<T> f;
    load_fragment<T, true>(f, weights + block_t<T>::super_bytes + j * block_t<T>::bytes, g, t);
    const struct rows<T> rows = rows_of<T>(f, t);
#pragma unroll
    for (int i = 0; i < TILES; i++)
        add_tile<T>(rows, get_tile<T, TILES>(x, j, i, g, t), sums.v[i], minima.v[i]);
}

/* A step, of which there are `left` blocks or more. */
template <enum dtype T, int TILES>
DEVICE void multiply_step(const struct step<T, TILES> &x, const uint8_t *weights, int left, struct held<TILES> &acc)
{
    struct held<TILES> a = {}, minima = {};
    if (layout_t<T>::k || left >= STEP) {
#pragma unroll
        for (int j = 0; j < STEP; j++)
            multiply_block<T, TILES>(x, weights, j, layout_t<T>::k ? a : acc, minima);
    } else {
#pragma unroll 1
        for (int j = 0; j < left; j++)
            multiply_block<T, TILES>(x, weights, j, acc, minima);
    }
    if constexpr (layout_t<T>::k) {
        uint32_t supers[2];
        load_super_pairs<T, true>(supers, weights, (int)threadIdx.x % LANES / 4);
#pragma unroll
        for (int i = 0; i < TILES; i++)
            close_half<T>(supers, a.v[i], minima.v[i], acc.v[i]);
    }
}

/* PARTIAL: in segments of SUM_SEGMENT columns. */
template <enum dtype T, bool PARTIAL, int TILES>
__global__ void __launch_bounds__(THREADS) product_mma(struct product_work w)
{
    static_assert(STEP * ACT_BLOCK == SUM_SEGMENT, "a step is a segment");
    constexpr int ahead = under_way<T, TILES>::steps;
    __shared__ struct step<T, TILES> steps[ahead];
    const int warp = (int)threadIdx.x / LANES, lane = (int)threadIdx.x % LANES;
    const int group = (int)blockIdx.x * WARPS + warp, at = min(group, w.groups - 1);
    const int all = (w.blocks + STEP - 1) / STEP, part = (all + (int)gridDim.z - 1) / (int)gridDim.z;
    const int begin = (int)blockIdx.z * part, end = min(begin + part, all);
    const uint8_t *weights = group_data(w, at);
    gpu_begin();
    struct held<TILES> acc = {};
    struct held_units<TILES> units = {};
    for (int i = 0; i < ahead - 1; i++) {
        if (begin + i < end)
            bring<T, TILES>(steps[i], w, weights, begin + i);
        gpu_bring_batch();
    }
    for (int i = begin, slot = 0, free = ahead - 1; i < end; i++) {
        gpu_brought_but<ahead - 2>();
        __syncthreads();
        if (i + ahead - 1 < end)
            bring<T, TILES>(steps[free], w, weights, i + ahead - 1);
        gpu_bring_batch();
        multiply_step<T, TILES>(steps[slot], steps[slot].weights[warp], w.blocks - i * STEP, acc);
        if constexpr (PARTIAL)
            close_segment<TILES>(acc, units);
        free = slot;
        slot = slot + 1 == ahead ? 0 : slot + 1;
    }
    if (group < w.groups)
        store_held<PARTIAL, TILES>(w, group, lane / 4, (int)blockIdx.y * TILE * TILES + 2 * (lane % 4), acc, units);
}

template <enum dtype T, bool PARTIAL, int TILES>
void launch(const struct gpu *g, const struct product_work &w, int parts)
{
    const dim3 grid((unsigned)((w.groups + WARPS - 1) / WARPS), (unsigned)((w.n + TILE * TILES - 1) / (TILE * TILES)),
                    (unsigned)parts);
    auto *kernel = product_mma<T, PARTIAL, TILES>;
    LAUNCH(kernel, grid, dim3(THREADS), 0, g, w);
}

/* Thread blocks where each has so many tiles. */
int64_t blocks_of(const struct product_work &w, int tiles)
{
    return (int64_t)((w.groups + WARPS - 1) / WARPS) * ((w.n + tiles * TILE - 1) / (tiles * TILE));
}

/* Into how many parts the steps of a partial product are cut, so that each multiprocessor has two thread blocks. */
int parts_of(const struct gpu *g, const struct product_work &w, int tiles)
{
    const int64_t wanted = 2 * g->n_sms / blocks_of(w, tiles), most = w.blocks / STEP / LEAST_STEPS;
    return (int)(wanted < 1 || most < 1 ? 1 : wanted < most ? wanted : most);
}

template <enum dtype T> void launch_partial(const struct gpu *g, const struct product_work &w)
{
    const int tiles = w.n > TILE ? MANY : 1, parts = parts_of(g, w, tiles);
    if (parts > 1 && !w.add)
        cudaMemsetAsync(w.to.units, 0, (size_t)w.n * (size_t)w.part[0].rows * sizeof *w.to.units, g->stream);
    if (tiles == 1)
        launch<T, true, 1>(g, w, parts);
    else
        launch<T, true, MANY>(g, w, parts);
}

/* Tiles of many tokens read weights less often, if there are enough of them for all multiprocessors. */
template <enum dtype T> void launch_whole(const struct gpu *g, const struct product_work &w)
{
    if (w.n > TILE && blocks_of(w, MANY) >= g->n_sms)
        launch<T, false, MANY>(g, w, 1);
    else
        launch<T, false, 1>(g, w, 1);
}

}

void products_mma(const struct gpu *g, enum dtype type, const struct product_work &w, bool partial)
{
    with_type(type, [&](auto t) {
        constexpr enum dtype T = decltype(t)::value;
        if (partial)
            launch_partial<T>(g, w);
        else
            launch_whole<T>(g, w);
    });
}
