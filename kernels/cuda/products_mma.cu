/* Products of several tokens by the tensor cores. A warp has a group of rows and a tile of tokens or more, and its
 * lanes have the ordered sums of what they hold of the result; the warps of a thread block have the same tokens.
 *
 * A step is 4 blocks, which are half a super-block and a segment. Steps are brought into shared memory some ahead of
 * the one that is multiplied: weights by the warp that they are for, x by all of them. Of a partial product the steps
 * may be parted among thread blocks, which add their units. */
#include "kernels/cuda/products_mma.cuh"
#include "kernels/cuda/products_shares.cuh"
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
    MOST_TILES = 4,                         /* of a thread block */
    LEAST_STEPS = 2,                        /* of a part of a partial product */
};

/* A step. Tokens are apart so that lanes meet different banks. */
template <enum dtype T, int TILES> struct step {
    static constexpr int tokens = TILE * TILES;
    static constexpr int weight_bytes = layout_t<T>::super_bytes + STEP * block_t<T>::bytes;
    alignas(PIECE) uint8_t weights[WARPS][weight_bytes]; /* supers, then blocks */
    alignas(PIECE) int8_t codes[tokens][STEP * ACT_BLOCK + PIECE];
    alignas(PIECE) struct act_block acts[STEP][tokens];
};

/* How many steps are under way: fewer of more tiles, so that a multiprocessor has room for more thread blocks. */
template <enum dtype T, int TILES> struct under_way {
    static constexpr int fit = ROOM / (int)sizeof(struct step<T, TILES>), most = TILES == 1 ? 8 : TILES == 2 ? 5 : 3;
    static constexpr int steps = fit < most ? fit : most;
};

/* ---- bringing ---- */

enum { CODE_TOKENS = THREADS / CODE_PIECES, ACT_TOKENS = THREADS / STEP };

/* What a thread brings of a step: of its warp's weights, and of x for all. */
struct source {
    const uint8_t *weights, *supers; /* pieces of the group */
    const int8_t *code;              /* a piece of a token; of those CODE_TOKENS further too */
    const struct act_block *act;
    int tokens;                      /* that the thread block has */
    int left;                        /* blocks of the row from the step on */
    bool odd;                        /* the second half of a super-block */
};

/* From step i on. */
template <enum dtype T> DEVICE struct source source_of(const struct product_work &w, int group, int first, int i)
{
    const int thread = (int)threadIdx.x, at = thread % LANES * PIECE, b = i * STEP;
    const uint8_t *weights = group_data(w, group);
    struct source from = {weights + block_offset<T>(b) + at};
    from.supers = weights + (int64_t)(b / SUPER_BLOCKS) * block_t<T>::eight + at;
    from.code = w.codes + (int64_t)(first + thread / CODE_PIECES) * w.cols + b * ACT_BLOCK +
                thread % CODE_PIECES * PIECE;
    from.act = w.acts + (int64_t)(first + thread / STEP) * w.blocks + b + thread % STEP;
    from.tokens = w.n - first;
    from.left = w.blocks - b;
    from.odd = i % 2;
    return from;
}

template <enum dtype T> DEVICE void next_step(struct source &from)
{
    using B = block_t<T>;
    from.weights += STEP * B::bytes + (B::k && from.odd ? B::super_bytes : 0);
    from.supers += B::k && from.odd ? B::eight : 0;
    from.code += STEP * ACT_BLOCK;
    from.act += STEP;
    from.left -= STEP;
    from.odd = !from.odd;
}

/* Four blocks of a warp's group, or those of them that there are, and their super-block's scales. */
template <enum dtype T> DEVICE void bring_weights(uint8_t *to, const struct source &from)
{
    using B = block_t<T>;
    const int at = (int)threadIdx.x % LANES * PIECE, bytes = (B::k ? (int)STEP : min((int)STEP, from.left)) * B::bytes;
    if (B::k && at < B::super_bytes)
        gpu_bring((int4 *)(to + at), (const int4 *)from.supers);
#pragma unroll
    for (int i = 0; i < STEP * B::bytes; i += LANES * PIECE)
        if (i + at < bytes)
            gpu_bring((int4 *)(to + B::super_bytes + at + i), (const int4 *)(from.weights + i));
}

/* What all threads bring of x: only what there is, since thread blocks that all read one token again and again wait
 * for each other. */
template <enum dtype T, int TILES>
DEVICE void bring_x(struct step<T, TILES> &to, const struct source &from, int64_t cols)
{
    const int thread = (int)threadIdx.x, piece = thread % CODE_PIECES, j = thread % STEP;
#pragma unroll
    for (int i = 0; i < TILE * TILES; i += CODE_TOKENS) {
        const int token = i + thread / CODE_PIECES;
        if (token < min(from.tokens, TILE * TILES) && piece * PIECE / ACT_BLOCK < from.left)
            gpu_bring((int4 *)&to.codes[token][piece * PIECE], (const int4 *)(from.code + i * cols));
    }
    static_assert(TILE * TILES <= ACT_TOKENS, "a thread brings one block's");
    if (thread / STEP < min(from.tokens, TILE * TILES) && j < from.left)
        gpu_bring((int4 *)&to.acts[j][thread / STEP], (const int4 *)from.act);
}

/* A step; then goes on to the next. */
template <enum dtype T, int TILES>
DEVICE void bring(struct step<T, TILES> &to, struct source &from, int64_t cols)
{
    bring_weights<T>(to.weights[threadIdx.x / LANES], from);
    bring_x<T, TILES>(to, from, cols);
    next_step<T>(from);
}

/* Tokens that there are not are zeros in every step: lanes multiply them too. */
template <enum dtype T, int TILES> DEVICE void clear_rest(struct step<T, TILES> &x, int tokens)
{
    const int thread = (int)threadIdx.x;
    for (int t = tokens + thread / CODE_PIECES; t < TILE * TILES; t += CODE_TOKENS)
        *(int4 *)&x.codes[t][thread % CODE_PIECES * PIECE] = make_int4(0, 0, 0, 0);
    for (int t = tokens + thread / STEP; t < TILE * TILES; t += ACT_TOKENS)
        x.acts[thread % STEP][t] = {};
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
    note_broken(w, (int)token, broken);
    if (token >= w.n || row >= w.part[0].rows)
        return;
    unsigned long long *to = (unsigned long long *)&w.to.units[token_of(w, token) * w.part[0].rows + row];
    if (gridDim.z > 1 || w.shares.of)
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
    const struct act_block *pair = &x.acts[j][TILE * i + 2 * t];
    const int8_t *code = &x.codes[TILE * i + g][j * ACT_BLOCK + 4 * t];
    struct tile to = {};
    to.code = make_int2(*(const int *)code, *(const int *)(code + ACT_BLOCK / 2));
    set_tile<T>(to, pair[0], pair[1]);
    return to;
}

template <enum dtype T, int TILES>
DEVICE void multiply_block(const struct gpu_book &book, const struct step<T, TILES> &x, const uint8_t *weights, int j,
                           struct held<TILES> &sums, struct held<TILES> &minima)
{
    const int g = (int)threadIdx.x % LANES / 4, t = (int)threadIdx.x % 4;
    struct fragment<T> f;
    load_fragment<T, true>(f, weights + block_t<T>::super_bytes + j * block_t<T>::bytes, g, t);
    const struct rows<T> rows = rows_of<T>(book, f, t);
#pragma unroll
    for (int i = 0; i < TILES; i++)
        add_tile<T>(rows, get_tile<T, TILES>(x, j, i, g, t), sums.v[i], minima.v[i]);
}

/* A step, of which there are `left` blocks or more. */
template <enum dtype T, int TILES>
DEVICE void multiply_step(const struct gpu_book &book, const struct step<T, TILES> &x, const uint8_t *weights, int left,
                          struct held<TILES> &acc)
{
    struct held<TILES> a = {}, minima = {};
    if (layout_t<T>::k || left >= STEP) {
#pragma unroll
        for (int j = 0; j < STEP; j++)
            multiply_block<T, TILES>(book, x, weights, j, layout_t<T>::k ? a : acc, minima);
    } else {
#pragma unroll 1
        for (int j = 0; j < left; j++)
            multiply_block<T, TILES>(book, x, weights, j, acc, minima);
    }
    if constexpr (layout_t<T>::k) {
        uint32_t supers[2];
        load_super_pairs<T, true>(supers, weights, (int)threadIdx.x % LANES / 4);
#pragma unroll
        for (int i = 0; i < TILES; i++)
            close_half<T>(book, supers, a.v[i], minima.v[i], acc.v[i]);
    }
}

/* PARTIAL: in segments of SUM_SEGMENT columns. */
template <enum dtype T, bool PARTIAL, int TILES, bool SHARES>
__global__ void __launch_bounds__(THREADS, 3) product_mma(struct product_work w)
{
    static_assert(STEP * ACT_BLOCK == SUM_SEGMENT, "a step is a segment");
    constexpr int ahead = under_way<T, TILES>::steps;
    __shared__ struct step<T, TILES> steps[ahead];
    const int warp = (int)threadIdx.x / LANES, lane = (int)threadIdx.x % LANES;
    const int group = (int)blockIdx.x * WARPS + warp, token = (int)blockIdx.y * TILE * TILES;
    if constexpr (SHARES) {
        gpu_begin();
        if (!take_share<PARTIAL>(w, (int)blockIdx.x * WARPS, token))
            return;
    }
    const int all = (w.blocks + STEP - 1) / STEP, parts = SHARES ? 1 : (int)gridDim.z, part = (all + parts - 1) / parts;
    const int begin = SHARES ? 0 : (int)blockIdx.z * part, end = min(begin + part, all);
    struct source from = source_of<T>(w, min(group, w.groups - 1), token, begin);
    if constexpr (!SHARES)
        gpu_begin();
    struct held<TILES> acc = {};
    struct held_units<TILES> units = {};
#pragma unroll 1
    for (int i = 0; i < ahead; i++)
        clear_rest<T, TILES>(steps[i], from.tokens);
#pragma unroll 1
    for (int i = 0; i < ahead - 1; i++) {
        if (begin + i < end)
            bring<T, TILES>(steps[i], from, w.cols);
        gpu_bring_batch();
    }
    for (int i = begin, slot = 0, free = ahead - 1; i < end; i++) {
        gpu_brought_but<ahead - 2>();
        __syncthreads();
        if (i + ahead - 1 < end)
            bring<T, TILES>(steps[free], from, w.cols);
        gpu_bring_batch();
        multiply_step<T, TILES>(w.book, steps[slot], steps[slot].weights[warp], w.blocks - i * STEP, acc);
        if constexpr (PARTIAL)
            close_segment<TILES>(acc, units);
        free = slot;
        slot = slot + 1 == ahead ? 0 : slot + 1;
    }
    if (group < w.groups)
        store_held<PARTIAL, TILES>(w, group, lane / 4, token + 2 * (lane % 4), acc, units);
}

template <enum dtype T, bool PARTIAL, int TILES>
void launch(const struct gpu *g, const struct product_work &w, int parts)
{
    const dim3 grid((unsigned)((w.groups + WARPS - 1) / WARPS), (unsigned)((w.n + TILE * TILES - 1) / (TILE * TILES)),
                    (unsigned)(w.shares.of ? w.most_shares : parts));
    auto *kernel = w.shares.of ? product_mma<T, PARTIAL, TILES, true> : product_mma<T, PARTIAL, TILES, false>;
    LAUNCH_AFTER(kernel, grid, dim3(THREADS), 0, g, w);
}

/* Thread blocks where each has so many tiles. */
int64_t blocks_of(const struct product_work &w, int tiles)
{
    return (int64_t)((w.groups + WARPS - 1) / WARPS) * ((w.n + tiles * TILE - 1) / (tiles * TILE));
}

/* No more tiles than there are tokens for, of a share as many as it may well have. */
int tiles_of(const struct product_work &w) { return w.n <= TILE ? 1 : w.n <= 2 * TILE ? 2 : MOST_TILES; }

template <enum dtype T, bool PARTIAL>
void launch_tiles(const struct gpu *g, const struct product_work &w, int tiles, int parts)
{
    if (tiles == 1)
        launch<T, PARTIAL, 1>(g, w, parts);
    else if (tiles == 2)
        launch<T, PARTIAL, 2>(g, w, parts);
    else
        launch<T, PARTIAL, MOST_TILES>(g, w, parts);
}

/* Into how many parts the steps of a partial product are cut, so that each multiprocessor has two thread blocks. */
int parts_of(const struct gpu *g, const struct product_work &w, int tiles)
{
    const int64_t wanted = 2 * g->n_sms / blocks_of(w, tiles), most = w.blocks / STEP / LEAST_STEPS;
    return (int)(wanted < 1 || most < 1 ? 1 : wanted < most ? wanted : most);
}

template <enum dtype T> void launch_partial(const struct gpu *g, const struct product_work &w)
{
    const int tiles = tiles_of(w), parts = parts_of(g, w, tiles);
    if (parts > 1 && !w.add)
        cudaMemsetAsync(w.to.units, 0, (size_t)w.n * (size_t)w.part[0].rows * sizeof *w.to.units, g->stream);
    launch_tiles<T, true>(g, w, tiles, parts);
}

/* The more tiles, the less often weights are read, but all multiprocessors need a thread block. */
template <enum dtype T> void launch_whole(const struct gpu *g, const struct product_work &w)
{
    int tiles = tiles_of(w);
    while (tiles > 1 && blocks_of(w, tiles) < g->n_sms)
        tiles /= 2;
    launch_tiles<T, false>(g, w, tiles, 1);
}

}

void products_mma(const struct gpu *g, enum dtype type, const struct product_work &w, bool partial)
{
    with_type(type, [&](auto t) {
        constexpr enum dtype T = decltype(t)::value;
        if (w.shares.of && partial)
            launch_tiles<T, true>(g, w, tiles_of(w), 1);
        else if (w.shares.of)
            launch_tiles<T, false>(g, w, tiles_of(w), 1);
        else if (partial)
            launch_partial<T>(g, w);
        else
            launch_whole<T>(g, w);
    });
}
