/* Partial products of few tokens: segments do not wait for each other, so a lane has a whole one of its row and rounds
 * it to units itself; a row's units are added last, in any order. */
#include "kernels/cuda/products_dot.cuh"
#include "kernels/cuda/products_shares.cuh"
#include "kernels/cuda/products_units.cuh"

namespace {

/* What the blocks in a lane's slots, a segment of SUM_SEGMENT columns (or the rest of the row), give for N tokens. */
template <enum dtype T, int N>
DEVICE void sum_slots(const struct gpu_book &book, const struct x_rows<N> &rows,
                      const struct reading<T, 1, ROUND_BLOCKS> &from, struct slot<T> *slots, const uint32_t *supers,
                      float *acc)
{
    using l = layout_t<T>;
    float minima[N] = {};
#pragma unroll
    for (int j = 0; j < SLOTS; j++) {
        if (!from.has(j))
            break;
        const uint32_t *scale = slots[j].scale;
        uint32_t quad[8];
        take_quads<T>(book, slots[j], quad);
        const float d = l::k ? 0 : gpu_block_scale<l>(scale[0]);
        const float m = l::k ? 0 : f32_of_half_bits((uint16_t)scale[l::row_scales - 1]);
#pragma unroll
        for (int t = 0; t < N; t++) {
            const struct x_block x = load_x<T, N>(rows, t, from.block + j);
            const struct halves sum = dot_block<T>(quad, x);
            if constexpr (l::k)
                add_k_block<T>(scale, sum, x.act, acc[t], minima[t]);
            else
                acc[t] = add_scaled<T>(acc[t], __int2float_rn(sum.low + sum.high), __fmul_rn(d, x.act.scale), m,
                                       x.act.scaled_sum);
        }
    }
    if constexpr (l::k) {
        const float d = gpu_super_scale<l>(book, supers[0]);
        const float m = l::minima ? -f32_of_half_bits((uint16_t)supers[1]) : 0;
#pragma unroll
        for (int t = 0; t < N; t++)
            acc[t] = add_scaled<T>(0, acc[t], d, m, minima[t]);
    }
}

/* Segments of SUM_SEGMENT columns: one in a lane's slots. */
template <enum dtype T, int N, bool SHARES>
__global__ void __launch_bounds__(READERS, 2) partial_dot(struct product_work w)
{
    static_assert(SLOTS * ACT_BLOCK == SUM_SEGMENT, "a lane's slots are a segment");
    const int token = (int)blockIdx.y * N, side = (int)threadIdx.x / ROW_GROUP, r = (int)threadIdx.x % ROW_GROUP;
    if constexpr (SHARES) {
        gpu_begin();
        if (!take_share<true>(w, (int)blockIdx.x, token))
            return;
    }
    const uint8_t *group = group_data(w, (int)blockIdx.x);
    struct reading<T, 1, ROUND_BLOCKS> from(group, side * SLOTS, w.blocks);
    struct slot<T> slots[SLOTS];
    const struct x_rows<N> rows = rows_of_x<N>(w, token);
    struct lane_sums<N> sums = {};
    uint32_t supers[2] = {};
#pragma unroll
    for (int j = 0; j < SLOTS; j++)
        if (from.has(j))
            fill<T>(slots[j], from.at(j), r);
    if (layout_t<T>::k && from.has(0))
        load_supers<T>(from.super_at(), r, supers);
    if constexpr (!SHARES)
        gpu_begin();
    for (; from.has(0); from.next()) {
        float acc[N] = {};
        sum_slots<T, N>(w.book, rows, from, slots, supers, acc);
        refill<T>(slots, from, r);
        if (layout_t<T>::k && from.has_next(0))
            load_supers<T>(from.super_at() + from.round_bytes, r, supers);
#pragma unroll
        for (int t = 0; t < N; t++)
            add_segment<N>(sums, t, acc[t]);
    }
    give_sums<N>(w, token, sums);
}

/* One token's blocks [b, end) of a row, whatever halves of super-blocks they begin and end in. */
template <enum dtype T>
DEVICE float sum_blocks_of(const struct gpu_book &book, const struct x_rows<1> &rows, const uint8_t *group, int r,
                           int b, int end)
{
    using l = layout_t<T>;
    float acc = 0, a = 0, minima = 0;
    for (; b < end; b++) {
        struct slot<T> s;
        uint32_t quad[8], supers[2] = {};
        fill<T>(s, group + block_offset<T>(b), r);
        take_quads<T>(book, s, quad);
        const struct x_block x = load_x<T, 1>(rows, 0, b);
        const struct halves sum = dot_block<T>(quad, x);
        if constexpr (l::k) {
            add_k_block<T>(s.scale, sum, x.act, a, minima);
            if ((b + 1) % HALF_BLOCKS != 0 && b + 1 != end)
                continue;
            load_supers<T>(group + (int64_t)(b / SUPER_BLOCKS) * block_t<T>::eight, r, supers);
            acc = add_scaled<T>(acc, a, gpu_super_scale<l>(book, supers[0]), -f32_of_half_bits((uint16_t)supers[1]),
                                minima);
            a = minima = 0;
        } else {
            const float m = l::minima ? f32_of_half_bits((uint16_t)s.scale[l::row_scales - 1]) : 0;
            acc = add_scaled<T>(acc, __int2float_rn(sum.low + sum.high),
                                __fmul_rn(gpu_block_scale<l>(s.scale[0]), x.act.scale), m, x.act.scaled_sum);
        }
    }
    return acc;
}

/* Segments of any whole blocks, of one token: what heads of an odd size need. */
template <enum dtype T> __global__ void __launch_bounds__(READERS) partial_dot_any(struct product_work w)
{
    gpu_begin();
    const int token = (int)blockIdx.y, side = (int)threadIdx.x / ROW_GROUP, r = (int)threadIdx.x % ROW_GROUP;
    const uint8_t *group = group_data(w, (int)blockIdx.x);
    const int length = w.segment / ACT_BLOCK;
    const struct x_rows<1> x = rows_of_x<1>(w, token);
    struct lane_sums<1> sums = {};
    for (int b = side * length; b < w.blocks; b += SIDES * length)
        add_segment<1>(sums, 0, sum_blocks_of<T>(w.book, x, group, r, b, min(b + length, w.blocks)));
    give_sums<1>(w, token, sums);
}

template <enum dtype T, int N> void launch(const struct gpu *g, const struct product_work &w)
{
    const dim3 grid((unsigned)w.groups, (unsigned)((w.n + N - 1) / N), (unsigned)w.most_shares);
    auto *kernel = w.shares.of ? partial_dot<T, N, true> : partial_dot<T, N, false>;
    LAUNCH(kernel, grid, dim3(READERS), 0, g, w);
}

template <enum dtype T> void launch_any(const struct gpu *g, const struct product_work &w)
{
    auto *kernel = partial_dot_any<T>;
    LAUNCH(kernel, dim3((unsigned)w.groups, (unsigned)w.n), dim3(READERS), 0, g, w);
}

}

void products_cut(const struct gpu *g, enum dtype type, const struct product_work &w)
{
    with_type(type, [&](auto t) {
        constexpr enum dtype T = decltype(t)::value;
        if (w.segment != SUM_SEGMENT)
            launch_any<T>(g, w);
        else if (w.n == 1)
            launch<T, 1>(g, w);
        else
            launch<T, 2>(g, w);
    });
}
