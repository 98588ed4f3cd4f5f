/* Products of 3 to 8 tokens by the tensor cores. As where dot products are taken (products_dot.cu, products_cut.cu), a
 * thread block has a group of 16 rows; but here a whole warp has a block of the rows, and multiplies it with all tokens
 * at once. */
#include "kernels/cuda/products_mma.cuh"
#include "kernels/cuda/products_ring.cuh"
#include "kernels/cuda/products_units.cuh"

namespace {

enum {
    FEW = 8,                      /* tokens */
    WARPS = READERS / LANES,      /* that read weights */
    SLOTS = 4,                    /* blocks that a warp has on their way */
    ROUND_BLOCKS = WARPS * SLOTS,
    ADDED = 2,                    /* tokens that a lane of those who add has */
    ADDERS = FEW * ROW_GROUP / ADDED,
};

template <enum dtype T> struct few_t {
    static constexpr bool k = layout_t<T>::k;
    static constexpr int slots = k ? SLOTS : 2;  /* that a warp takes between two barriers */
    static constexpr int leap = k ? 1 : WARPS;   /* blocks from slot to slot */
    static constexpr int entries = k ? WARPS : WARPS * slots;
    static constexpr int entry_blocks = k ? HALF_BLOCKS : 1;
    static constexpr int resident = layout_t<T>::low_bits == 2 && layout_t<T>::high_bits ? 1 : 2; /* Q3_K is large */
    using ring = struct ring<T, FEW, entries, ROW_GROUP + 4>;
};

/* Where a lane's tokens lie: the words of token g from quad t on, and tokens 2t and 2t + 1. Past the last token it is
 * taken again. */
struct lane_x {
    const int *code;
    const struct act_block *first, *second;
};

DEVICE struct lane_x lane_x_of(const struct product_work &w, int token, int g, int t)
{
    const int64_t last = w.n - 1, code = min((int64_t)token + g, last);
    const int64_t first = min((int64_t)token + 2 * t, last), second = min((int64_t)token + 2 * t + 1, last);
    return {(const int *)(w.codes + code * w.cols) + t, w.acts + first * w.blocks, w.acts + second * w.blocks};
}

template <enum dtype T> DEVICE struct tile load_tile(const struct lane_x &from, int b)
{
    constexpr bool sums = layout_t<T>::minima && layout_t<T>::halves;
    const struct act_block first = load_act<sums>(from.first + b), second = load_act<sums>(from.second + b);
    struct tile x = {};
    x.code = make_int2(__ldg(from.code + b * (ACT_BLOCK / 4)), __ldg(from.code + b * (ACT_BLOCK / 4) + 4));
    set_tile<T>(x, first, second);
    return x;
}

template <typename VALUES> DEVICE void put_held(VALUES &to, int g, int t, const float *v)
{
    *(float2 *)&to[2 * t][2 * g] = make_float2(v[0], v[2]);
    *(float2 *)&to[2 * t + 1][2 * g] = make_float2(v[1], v[3]);
}

/* Fills the slots for the next round, all at once: a warp waits for all of its loads, whichever it needs. */
template <enum dtype T, typename READING>
DEVICE void refill(struct fragment<T> *slots, const READING &from, int g, int t)
{
#pragma unroll
    for (int j = 0; j < SLOTS; j++)
        if (from.has_next(j))
            load_fragment<T, false>(slots[j], from.next_at(j), g, t);
}

/* A warp's entries from its slots [j, j + few_t::slots). */
template <enum dtype T, int LEAP>
DEVICE void put_blocks(const struct gpu_book &book, const struct lane_x &rows,
                       const struct reading<T, LEAP, ROUND_BLOCKS> &from, struct fragment<T> *slots, int j, int g,
                       int t, typename few_t<T>::ring &to)
{
#pragma unroll
    for (int i = j; i < j + few_t<T>::slots; i++) {
        const int entry = (i - j) * WARPS + (int)threadIdx.x / LANES;
        if (!from.has(i))
            break;
        const struct tile x = load_tile<T>(rows, from.block + i * LEAP);
        float sum[HELD];
        multiply<T>(rows_of<T>(book, slots[i], t), x, sum);
        put_held(to.value[entry], g, t, sum);
        for (int h = 0; h < 2 && t == 0; h++) {
            uint32_t scale[2];
            row_scales<T>(scale, slots[i], h);
            put_scales<T>(book, to, entry, 2 * g + h, scale);
        }
        if (g == 0) {
            to.x[entry][2 * t] = make_float2(x.scale.x, x.scaled_sum[0].x);
            to.x[entry][2 * t + 1] = make_float2(x.scale.y, x.scaled_sum[0].y);
        }
    }
}

/* Adds what is in the slots, 4 blocks or those that the row has, to acc, or of K types to a and minima. */
template <enum dtype T>
DEVICE void add_slots(const struct gpu_book &book, const struct lane_x &rows,
                      const struct reading<T, 1, ROUND_BLOCKS> &from, struct fragment<T> *slots, int t, float acc[HELD],
                      float minima[HELD])
{
#pragma unroll
    for (int j = 0; j < SLOTS; j++) {
        if (!from.has(j))
            break;
        add_tile<T>(rows_of<T>(book, slots[j], t), load_tile<T>(rows, from.block + j), acc, minima);
    }
}

/* A warp's entry of a K type. */
template <enum dtype T>
DEVICE void put_half(const struct gpu_book &book, const struct lane_x &rows,
                     const struct reading<T, 1, ROUND_BLOCKS> &from, struct fragment<T> *slots,
                     const uint32_t supers[2], int g, int t, typename few_t<T>::ring &to)
{
    const int entry = (int)threadIdx.x / LANES;
    float a[HELD] = {}, minima[HELD] = {};
    if (!from.has(0))
        return;
    add_slots<T>(book, rows, from, slots, t, a, minima);
    put_held(to.value[entry], g, t, a);
    if constexpr (layout_t<T>::minima)
        put_held(to.k_min[entry], g, t, minima);
    for (int h = 0; h < 2 && t == 0; h++) {
        uint32_t of_row[2];
        row_supers<T>(of_row, supers, h);
        put_scales<T>(book, to, entry, 2 * g + h, of_row);
    }
}

template <enum dtype T>
__global__ void __launch_bounds__(READERS + ADDERS, few_t<T>::resident) whole_few(struct product_work w)
{
    using F = few_t<T>;
    __shared__ typename F::ring rings[2];
    const int thread = (int)threadIdx.x, warp = thread / LANES, g = thread % LANES / 4, t = thread % 4;
    const uint8_t *group = group_data(w, (int)blockIdx.x);
    const int token = (int)blockIdx.y * FEW, added = thread - READERS, r = thread % ROW_GROUP;
    const bool reads = thread < READERS;
    struct reading<T, F::leap, ROUND_BLOCKS> from(group, reads ? warp * F::entry_blocks : w.blocks, w.blocks);
    const struct lane_x rows = lane_x_of(w, token, g, t);
    struct fragment<T> slots[SLOTS];
    uint32_t supers[2] = {};
    float acc[ADDED] = {};
    int turn = 0;
#pragma unroll
    for (int j = 0; j < SLOTS; j++)
        if (from.has(j))
            load_fragment<T, false>(slots[j], from.at(j), g, t);
    if (layout_t<T>::k && from.has(0))
        load_super_pairs<T, false>(supers, from.super_at(), g);
    gpu_begin();
    for (int first = 0; first < w.blocks; first += ROUND_BLOCKS, from.next()) {
#pragma unroll
        for (int j = 0; j < SLOTS; j += F::slots, turn ^= 1) {
            const int left = (w.blocks - first) / F::entry_blocks - j * WARPS;
            if (left <= 0)
                break;
            if constexpr (F::k)
                put_half<T>(w.book, rows, from, slots, supers, g, t, rings[turn]);
            else
                put_blocks<T>(w.book, rows, from, slots, j, g, t, rings[turn]);
            if (j + F::slots == SLOTS)
                refill<T>(slots, from, g, t);
            if (F::k && from.has_next(0))
                load_super_pairs<T, false>(supers, from.super_at() + from.round_bytes, g);
            __syncthreads();
            if (!reads)
                add_entries<T, ADDED, FEW / ADDED>(rings[turn], min(left, F::entries), added / ROW_GROUP, r, acc);
        }
    }
    for (int i = 0; i < ADDED && !reads; i++)
        store_y(w, (int)blockIdx.x, r, token + added / ROW_GROUP + i * (FEW / ADDED), acc[i]);
}

/* In segments of SUM_SEGMENT columns, which are a warp's slots. */
template <enum dtype T> __global__ void __launch_bounds__(READERS, 2) partial_few(struct product_work w)
{
    static_assert(SLOTS * ACT_BLOCK == SUM_SEGMENT, "a warp's slots are a segment");
    __shared__ struct warp_sums<FEW> found;
    const int thread = (int)threadIdx.x, warp = thread / LANES, g = thread % LANES / 4, t = thread % 4;
    const uint8_t *group = group_data(w, (int)blockIdx.x);
    const int token = (int)blockIdx.y * FEW;
    struct reading<T, 1, ROUND_BLOCKS> from(group, warp * SLOTS, w.blocks);
    const struct lane_x rows = lane_x_of(w, token, g, t);
    struct fragment<T> slots[SLOTS];
    struct lane_sums<HELD> sums = {};
    uint32_t supers[2] = {};
#pragma unroll
    for (int j = 0; j < SLOTS; j++)
        if (from.has(j))
            load_fragment<T, false>(slots[j], from.at(j), g, t);
    if (layout_t<T>::k && from.has(0))
        load_super_pairs<T, false>(supers, from.super_at(), g);
    gpu_begin();
    for (; from.has(0); from.next()) {
        float acc[HELD] = {}, a[HELD] = {}, minima[HELD] = {};
        add_slots<T>(w.book, rows, from, slots, t, layout_t<T>::k ? a : acc, minima);
        if constexpr (layout_t<T>::k)
            close_half<T>(w.book, supers, a, minima, acc);
        refill<T>(slots, from, g, t);
        if (layout_t<T>::k && from.has_next(0))
            load_super_pairs<T, false>(supers, from.super_at() + from.round_bytes, g);
#pragma unroll
        for (int e = 0; e < HELD; e++)
            add_segment<HELD>(sums, e, acc[e]);
    }
#pragma unroll
    for (int e = 0; e < HELD; e++) {
        found.units[warp][2 * t + e % 2][2 * g + e / 2] = sums.units[e];
        note_broken(w, token + 2 * t + e % 2, sums.broken >> e & 1);
    }
    write_sums<FEW>(w, token, found);
}

template <enum dtype T> void launch(const struct gpu *g, const struct product_work &w, bool partial)
{
    const dim3 grid((unsigned)w.groups, (unsigned)((w.n + FEW - 1) / FEW));
    auto *kernel = partial ? partial_few<T> : whole_few<T>;
    LAUNCH(kernel, grid, dim3(partial ? READERS : READERS + ADDERS), 0, g, w);
}

}

void products_few(const struct gpu *g, enum dtype type, const struct product_work &w, bool partial)
{
    with_type(type, [&](auto t) { launch<decltype(t)::value>(g, w, partial); });
}
