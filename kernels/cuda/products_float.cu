/* Products with float weights: a lane has a row and a segment of FLOAT_SEGMENT columns, the 16 lanes beside each other
 * have the 16 rows of a group. Of whole products a thread block then adds the segments in their order; of partial ones
 * each lane rounds its segments to units. */
#include "kernels/cuda/products_shares.cuh"
#include "kernels/cuda/products_units.cuh"

namespace {

template <enum dtype T> struct float_t {
    using stored = uint16_t;
};
template <> struct float_t<DT_F32> {
    using stored = float;
};

template <enum dtype T> DEVICE float float_of(typename float_t<T>::stored v)
{
    if constexpr (T == DT_F32)
        return v;
    else if constexpr (T == DT_F16)
        return f32_of_half_bits(v);
    else
        return f32_of_bf16_bits(v);
}

/* Four columns of x, at once where they are ALIGNED. */
template <bool ALIGNED> DEVICE float4 load_x4(const float *p)
{
    if constexpr (ALIGNED)
        return __ldg((const float4 *)p);
    else
        return make_float4(__ldg(p), __ldg(p + 1), __ldg(p + 2), __ldg(p + 3));
}

/* acc[t] += columns [begin, end) of a row times token t, end - begin a multiple of BATCH. weights: the row's in column
 * 0. */
template <enum dtype T, int N, int BATCH, bool ALIGNED>
DEVICE void add_batches(const struct product_work &w, const typename float_t<T>::stored *weights, int token, int begin,
                        int end, float acc[N])
{
#pragma unroll 1
    for (int c = begin; c < end; c += BATCH) {
        typename float_t<T>::stored v[BATCH];
#pragma unroll
        for (int i = 0; i < BATCH; i++)
            v[i] = __ldg(weights + (int64_t)(c + i) * ROW_GROUP);
#pragma unroll
        for (int i = 0; i < BATCH; i += 4) {
#pragma unroll
            for (int t = 0; t < N; t++) {
                const float4 x = load_x4<ALIGNED>(w.f32 + (int64_t)min(token + t, w.n - 1) * w.cols + c + i);
                acc[t] = __fmaf_rn(float_of<T>(v[i]), x.x, acc[t]);
                acc[t] = __fmaf_rn(float_of<T>(v[i + 1]), x.y, acc[t]);
                acc[t] = __fmaf_rn(float_of<T>(v[i + 2]), x.z, acc[t]);
                acc[t] = __fmaf_rn(float_of<T>(v[i + 3]), x.w, acc[t]);
            }
        }
    }
}

/* acc[t] = the sum over columns [begin, end) of a row times token t, from +0. */
template <enum dtype T, int N>
DEVICE void dot_floats(const struct product_work &w, const typename float_t<T>::stored *weights, int token, int begin,
                       int end, float acc[N])
{
    constexpr int batch = 32 / N; /* weights of a lane on their way */
    const int full = begin + (end - begin) / batch * batch;
#pragma unroll
    for (int t = 0; t < N; t++)
        acc[t] = 0;
    if (w.cols % 4 == 0 && begin % 4 == 0)
        add_batches<T, N, batch, true>(w, weights, token, begin, full, acc);
    else
        add_batches<T, N, batch, false>(w, weights, token, begin, full, acc);
#pragma unroll 1
    for (int c = full; c < end; c++) {
        const float v = float_of<T>(__ldg(weights + (int64_t)c * ROW_GROUP));
#pragma unroll
        for (int t = 0; t < N; t++)
            acc[t] = __fmaf_rn(v, __ldg(w.f32 + (int64_t)min(token + t, w.n - 1) * w.cols + c), acc[t]);
    }
}

template <enum dtype T, int N, bool SHARES>
__global__ void __launch_bounds__(READERS, N == 1 ? 3 : 2) whole_float(struct product_work w)
{
    __shared__ float segments[2][SIDES][N | 1][ROW_GROUP];
    const int token = (int)blockIdx.y * N, side = (int)threadIdx.x / ROW_GROUP, r = (int)threadIdx.x % ROW_GROUP;
    gpu_begin();
    if constexpr (SHARES)
        if (!take_share<false>(w, (int)blockIdx.x, token))
            return;
    const auto *weights = (const typename float_t<T>::stored *)group_data(w, (int)blockIdx.x) + r;
    const int all = (w.cols + FLOAT_SEGMENT - 1) / FLOAT_SEGMENT;
    float acc[N], sum = 0;
    for (int first = 0, turn = 0; first < all; first += SIDES, turn ^= 1) {
        const int begin = (first + side) * FLOAT_SEGMENT;
        if (begin < w.cols) {
            dot_floats<T, N>(w, weights, token, begin, min(begin + FLOAT_SEGMENT, w.cols), acc);
#pragma unroll
            for (int t = 0; t < N; t++)
                segments[turn][side][t][r] = acc[t];
        }
        __syncthreads();
        for (int i = 0; i < min(all - first, (int)SIDES) && side < N; i++)
            sum = __fadd_rn(sum, segments[turn][i][side][r]);
    }
    if (side < N)
        store_y(w, (int)blockIdx.x, r, token + side, sum);
}

/* A segment of a partial product, which may be of several FLOAT_SEGMENTs. */
template <enum dtype T, int N>
DEVICE void add_float_segment(const struct product_work &w, const typename float_t<T>::stored *weights,
                              int token, int begin, int end, struct lane_sums<N> &to)
{
    float sum[N] = {}, acc[N];
    for (int c = begin; c < end; c += FLOAT_SEGMENT) {
        dot_floats<T, N>(w, weights, token, c, min(c + FLOAT_SEGMENT, end), acc);
#pragma unroll
        for (int t = 0; t < N; t++)
            sum[t] = __fadd_rn(sum[t], acc[t]);
    }
#pragma unroll
    for (int t = 0; t < N; t++)
        add_segment<N>(to, t, sum[t]);
}

template <enum dtype T, int N, bool SHARES>
__global__ void __launch_bounds__(READERS, 2) partial_float(struct product_work w)
{
    const int token = (int)blockIdx.y * N, side = (int)threadIdx.x / ROW_GROUP, r = (int)threadIdx.x % ROW_GROUP;
    gpu_begin();
    if constexpr (SHARES)
        if (!take_share<true>(w, (int)blockIdx.x, token))
            return;
    const auto *weights = (const typename float_t<T>::stored *)group_data(w, (int)blockIdx.x) + r;
    struct lane_sums<N> sums = {};
    for (int c = side * w.segment; c < w.cols; c += SIDES * w.segment)
        add_float_segment<T, N>(w, weights, token, c, min(c + w.segment, w.cols), sums);
    give_sums<N>(w, token, sums);
}

template <enum dtype T, int N, bool SHARES>
void launch(const struct gpu *g, const struct product_work &w, bool partial)
{
    const dim3 grid((unsigned)w.groups, (unsigned)((w.n + N - 1) / N), (unsigned)w.most_shares);
    auto *kernel = partial ? partial_float<T, N, SHARES> : whole_float<T, N, SHARES>;
    LAUNCH(kernel, grid, dim3(READERS), 0, g, w);
}

template <enum dtype T> void launch_type(const struct gpu *g, const struct product_work &w, bool partial)
{
    if (w.shares.of && w.n == 1)
        launch<T, 1, true>(g, w, partial);
    else if (w.shares.of)
        launch<T, 4, true>(g, w, partial);
    else if (w.n == 1)
        launch<T, 1, false>(g, w, partial);
    else if (w.n == 2)
        launch<T, 2, false>(g, w, partial);
    else
        launch<T, 4, false>(g, w, partial);
}

}

void products_float(const struct gpu *g, enum dtype type, const struct product_work &w, bool partial)
{
    with_float_type(type, [&](auto t) { launch_type<decltype(t)::value>(g, w, partial); });
}
