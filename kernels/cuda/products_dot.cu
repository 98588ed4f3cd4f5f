/* Whole products of few tokens. A thread block has a group of 16 rows. Its readers run through the blocks of the rows,
 * SIDES side by side, and put what the ordered sum needs of each into a ring in shared memory: the exact integer sum
 * and the block's scale, or of K types the sum of a half super-block and its scale. Further warps, a lane for each row
 * and token, add them up in the order of the columns, while the readers are at what comes next. */
#include "kernels/cuda/products_dot.cuh"
#include "kernels/cuda/products_ring.cuh"
#include "kernels/cuda/products_shares.cuh"

namespace {

/* How much goes into the ring between two barriers. */
template <enum dtype T, int N> struct ring_t {
    static constexpr bool k = layout_t<T>::k;
    static constexpr int slots = k ? SLOTS : N <= 2 ? 2 : 1; /* that readers take at a time */
    static constexpr int leap = k ? 1 : SIDES;               /* blocks from slot to slot */
    static constexpr int entries = k ? SIDES : SIDES * slots;
    static constexpr int entry_blocks = k ? HALF_BLOCKS : 1;
    static constexpr int adders = N <= 2 ? LANES : N * ROW_GROUP;
    using ring = struct ring<T, N, entries, ROW_GROUP>;
};

/* A reader's entries from its slots [j, j + R::slots). */
template <enum dtype T, int N>
DEVICE void put_blocks(const struct gpu_book &book, const struct x_rows<N> &rows,
                       const struct reading<T, SIDES, ROUND_BLOCKS> &from, struct slot<T> *slots, int j, int side,
                       int r, typename ring_t<T, N>::ring &to)
{
    using R = ring_t<T, N>;
#pragma unroll
    for (int i = 0; i < R::slots; i++) {
        const int entry = i * SIDES + side, block = from.block + (j + i) * SIDES;
        if (!from.has(j + i))
            continue;
        uint32_t quad[8];
        take_quads<T>(book, slots[j + i], quad);
        put_scales<T>(book, to, entry, r, slots[j + i].scale);
#pragma unroll
        for (int t = 0; t < N; t++) {
            const struct x_block x = load_x<T, N>(rows, t, block);
            const struct halves sum = dot_block<T>(quad, x);
            to.value[entry][t][r] = __int2float_rn(sum.low + sum.high);
            if (r == 0)
                to.x[entry][t] = make_float2(x.act.scale, x.act.scaled_sum);
        }
    }
}

/* The same of a K type: one entry, of the half super-block in all slots. supers: f16 d, dmin. */
template <enum dtype T, int N>
DEVICE void put_half(const struct gpu_book &book, const struct x_rows<N> &rows,
                     const struct reading<T, 1, ROUND_BLOCKS> &from, struct slot<T> *slots, const uint32_t *supers,
                     int side, int r, typename ring_t<T, N>::ring &to)
{
    float a[N] = {}, minima[N] = {};
    if (!from.has(0))
        return;
#pragma unroll
    for (int j = 0; j < SLOTS; j++) {
        uint32_t quad[8];
        take_quads<T>(book, slots[j], quad);
#pragma unroll
        for (int t = 0; t < N; t++) {
            const struct x_block x = load_x<T, N>(rows, t, from.block + j);
            add_k_block<T>(slots[j].scale, dot_block<T>(quad, x), x.act, a[t], minima[t]);
        }
    }
#pragma unroll
    for (int t = 0; t < N; t++) {
        to.value[side][t][r] = a[t];
        if constexpr (layout_t<T>::minima)
            to.k_min[side][t][r] = minima[t];
    }
    put_scales<T>(book, to, side, r, supers);
}

template <enum dtype T, int N, bool SHARES>
__global__ void __launch_bounds__(READERS + ring_t<T, N>::adders, N == 1 ? 2 : 1) whole_dot(struct product_work w)
{
    using R = ring_t<T, N>;
    __shared__ typename R::ring rings[2];
    const int token = (int)blockIdx.y * N, thread = (int)threadIdx.x;
    const bool reads = thread < READERS;
    const int side = thread / ROW_GROUP, r = thread % ROW_GROUP, t = side - SIDES; /* t: the token of an adder */
    if constexpr (SHARES) {
        gpu_begin();
        if (!take_share<false>(w, (int)blockIdx.x, token))
            return;
    }
    const uint8_t *group = group_data(w, (int)blockIdx.x);
    struct reading<T, R::leap, ROUND_BLOCKS> from(group, reads ? side * R::entry_blocks : w.blocks, w.blocks);
    struct slot<T> slots[SLOTS];
    uint32_t supers[2] = {};
    const struct x_rows<N> rows = rows_of_x<N>(w, token);
    float acc = 0;
    int turn = 0;
#pragma unroll
    for (int j = 0; j < SLOTS; j++)
        if (from.has(j))
            fill<T>(slots[j], from.at(j), r);
    if (layout_t<T>::k && from.has(0))
        load_supers<T>(from.super_at(), r, supers);
    if constexpr (!SHARES)
        gpu_begin();
    for (int first = 0; first < w.blocks; first += ROUND_BLOCKS, from.next()) {
#pragma unroll
        for (int j = 0; j < SLOTS; j += R::slots, turn ^= 1) {
            const int left = (w.blocks - first) / R::entry_blocks - j * SIDES;
            if (left <= 0)
                break;
            if constexpr (R::k)
                put_half<T, N>(w.book, rows, from, slots, supers, side, r, rings[turn]);
            else
                put_blocks<T, N>(w.book, rows, from, slots, j, side, r, rings[turn]);
            if (j + R::slots == SLOTS)
                refill<T>(slots, from, r);
            if (R::k && from.has_next(0))
                load_supers<T>(from.super_at() + from.round_bytes, r, supers);
            __syncthreads();
            if (!reads && t < N)
                add_entries<T, 1, 1>(rings[turn], min(left, R::entries), t, r, &acc);
        }
    }
    if (!reads && t < N)
        store_y(w, (int)blockIdx.x, r, token + t, acc);
}

template <enum dtype T, int N> void launch(const struct gpu *g, const struct product_work &w)
{
    const dim3 grid((unsigned)w.groups, (unsigned)((w.n + N - 1) / N), (unsigned)w.most_shares);
    auto *kernel = w.shares.of ? whole_dot<T, N, true> : whole_dot<T, N, false>;
    LAUNCH(kernel, grid, dim3(READERS + ring_t<T, N>::adders), 0, g, w);
}

}

void products_dot(const struct gpu *g, enum dtype type, const struct product_work &w)
{
    with_type(type, [&](auto t) {
        constexpr enum dtype T = decltype(t)::value;
        if (w.n == 1)
            launch<T, 1>(g, w);
        else
            launch<T, 2>(g, w);
    });
}
