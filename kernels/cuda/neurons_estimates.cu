/* The estimates of all rows (kernels.h, estimate_rows). A half-warp takes a few rows: its lanes are the sum's lanes, and
 * what a lane reads of x serves all of them, what it reads of a row serves several tokens. */
#include "kernels/cuda/neuron_rows.cuh"
#include "kernels/cuda/neurons.h"

namespace {

enum { THREADS = 128, HALVES = THREADS / LANE_BLOCKS };

/* What a block weighs in an estimate: its top codes, D and M of its halves. */
template <class R> struct estimate_block {
    uint32_t quad[8];
    float d[2], m[2];
};

template <class R> __device__ __forceinline__ struct estimate_block<R> estimate_of(const struct row_block<R> &w)
{
    struct estimate_block<R> e;
    codes_of<R, false>(w, e.quad);
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

/* Tokens [t0, t0 + n), n <= TOKENS, of rows [row, row + ROWS); those past the last repeat it. CHUNKS are read together. */
template <class R, bool WHOLE, int TOKENS, int ROWS, int CHUNKS>
__device__ __forceinline__ void estimate(const struct factors &f, int rows, int row, int t0, int n, float *y,
                                         int64_t stride)
{
    const int lane = threadIdx.x % LANE_BLOCKS, nb = f.cols / ACT_BLOCK;
    float sum[ROWS][TOKENS] = {};
    for (int begin = lane; begin < nb; begin += CHUNKS * LANE_BLOCKS) {
        struct row_block<R> w[CHUNKS][ROWS];
#pragma unroll
        for (int c = 0; c < CHUNKS; c++)
#pragma unroll
            for (int r = 0; r < ROWS; r++)
                if (begin + c * LANE_BLOCKS < nb)
                    load_block<R, false, WHOLE>(f, row + r < rows ? row + r : rows - 1, begin + c * LANE_BLOCKS, nb, &w[c][r]);
#pragma unroll
        for (int c = 0; c < CHUNKS; c++) {
            const int b = begin + c * LANE_BLOCKS;
            struct estimate_block<R> e[ROWS];
            if (b >= nb)
                break;
#pragma unroll
            for (int r = 0; r < ROWS; r++)
                e[r] = estimate_of(w[c][r]);
#pragma unroll
            for (int t = 0; t < TOKENS; t++) {
                if (t >= n)
                    break;
                const struct x_block x = load_x(f, (int64_t)(t0 + t) * nb + b);
#pragma unroll
                for (int r = 0; r < ROWS; r++)
                    sum[r][t] = add_block(e[r], x, sum[r][t]);
            }
        }
    }
    const bool absent = nb % LANE_BLOCKS && lane >= nb % LANE_BLOCKS;
#pragma unroll
    for (int r = 0; r < ROWS; r++)
#pragma unroll
        for (int t = 0; t < TOKENS; t++) {
            const float all = sum_of_lanes(absent ? __fadd_rn(sum[r][t], 0.0f) : sum[r][t]); /* -0 becomes +0 */
            if (lane == 0 && t < n && row + r < rows)
                y[(t0 + t) * stride + row + r] = all;
        }
}

template <class R, bool WHOLE, int TOKENS, int ROWS, int CHUNKS>
__global__ void __launch_bounds__(THREADS, ROWS > 2 ? 3 : 4)
estimate_rows(struct factors f, int rows, int n, float *y, int64_t stride)
{
    gpu_begin();
    const int row = ((int)blockIdx.x * HALVES + (int)threadIdx.x / LANE_BLOCKS) * ROWS;
    for (int t = 0; t < n; t += TOKENS)
        estimate<R, WHOLE, TOKENS, ROWS, CHUNKS>(f, rows, row, t, n - t < TOKENS ? n - t : TOKENS, y, stride);
}

template <class R, int TOKENS, int ROWS, int CHUNKS>
void launch(const struct gpu *g, const struct neuron_rows *m, const struct acts *x, int64_t n, float *y, int64_t stride)
{
    auto *kernel = in_whole_chunks(m) ? estimate_rows<R, true, TOKENS, ROWS, CHUNKS>
                                      : estimate_rows<R, false, TOKENS, ROWS, CHUNKS>;
    LAUNCH(kernel, (unsigned)((m->rows + HALVES * ROWS - 1) / (HALVES * ROWS)), THREADS, 0, g, factors_of(m, x),
           (int)m->rows, (int)n, y, stride);
}

}

void gpu_estimate_rows(const struct gpu *g, const struct neuron_rows *m, const struct acts *x, int64_t n, float *y,
                       int64_t y_stride)
{
    if (!m->rows || !n)
        return;
    with_type(m->type, [&](auto t) {
        using R = row_t<decltype(t)::value, row_t<decltype(t)::value, false>::can_have_planes>;
        if constexpr (R::planes) {
            if (n == 1)
                launch<R, 1, 2, R::k ? 2 : 4>(g, m, x, n, y, y_stride);
            else
                launch<R, 4, 4, 1>(g, m, x, n, y, y_stride);
        }
    });
}
