/* Rows of single neurons times tokens: the bits of dot_rows. A warp reads a row, a block (of float rows a segment) a
 * lane, and writes what each adds to the sum into shared memory; then a lane adds up a pair in the order that the sum
 * has. A warp takes a few pairs at a time, so that their sums, each of which is a chain of dependent operations, run
 * side by side. */
#include "kernels/cuda/file_weights.cuh"
#include "kernels/cuda/neuron_rows.cuh"
#include "kernels/cuda/neurons.h"
#include "kernels/cuda/shares.cuh"

namespace {

enum {
    WARPS = 8,           /* of a thread block */
    BLOCKS_OF_SM = 2,
    AT_ONCE = 4,         /* pairs of a warp */
    STRIP_LINKS = 128,   /* links of a pair at a time */
    LINKS_STRIDE = STRIP_LINKS + 2 /* other banks for other pairs */
};

/* sum = fma(a, b, sum) */
struct link {
    float a, b;
};

/* How a row becomes a chain: so many units of columns a lane in a strip, so many links for each `group` of units. */
template <enum dtype T, bool PLANES> struct chain_t : row_t<T, PLANES> {
    using r = row_t<T, PLANES>;
    static constexpr int columns = ACT_BLOCK;
    static constexpr int group = r::k ? HALF_BLOCKS : 1, links = r::minima ? 2 : 1;
    static constexpr int of_lane = r::k || r::minima || r::code_bits > 5 ? 2 : 4; /* as links and registers allow */
    static_assert(of_lane * LANES / group * links <= STRIP_LINKS, "a strip has room for its links");
};
template <enum dtype T> struct float_chain_t {
    static constexpr int columns = FLOAT_SEGMENT, group = 1, links = 1, of_lane = 4;
};

/* A block of a type without super-blocks. */
template <class R>
__device__ __forceinline__ void link_block(const struct gpu_book &book, const struct row_block<R> &w,
                                           const struct x_block &x, struct link *to)
{
    uint32_t quad[8];
    codes_of<R, true>(book, w, quad);
    const int start = R::code_bits == 8 ? 0 : R::offset * x.s.minus_sum;
    to[0] = {(float)dot_codes<R>(quad, x, 0, start), __fmul_rn(gpu_block_scale<R>(w.d), x.s.scale)};
    if constexpr (R::minima)
        to[1] = {f32_of_half_bits((uint16_t)w.m), x.s.scaled_sum};
}

/* Four lanes' blocks, half a super-block: its sum passes over them. The last lane has the links. */
template <class R>
__device__ __forceinline__ void link_half(const struct gpu_book &book, bool there, const struct row_block<R> &w,
                                          const struct x_block &x, struct link *to)
{
    const int place = threadIdx.x % HALF_BLOCKS;
    float sum = 0, least = 0, min[2] = {0, 0}, scaled_sum[2] = {0, 0};
    int t = 0;
    if (there) {
        uint32_t quad[8];
        codes_of<R, true>(book, w, quad);
#pragma unroll
        for (int h = 0; h < (R::halves ? 2 : 1); h++) {
            t += k_scale_of(w, h) * dot_codes<R>(quad, x, h, R::offset * minus_sum_of<R>(x.s, h));
            if constexpr (R::minima) {
                min[h] = (float)k_min_of(w, h);
                scaled_sum[h] = scaled_sum_of<R>(x.s, h);
            }
        }
    }
#pragma unroll
    for (int i = 0; i < HALF_BLOCKS; i++) {
        const float before = i ? __shfl_sync(FULL_MASK, sum, i - 1, HALF_BLOCKS) : 0.0f;
        const float least_before = i && R::minima ? __shfl_sync(FULL_MASK, least, i - 1, HALF_BLOCKS) : 0.0f;
        if (place != i || !there)
            continue;
        sum = __fmaf_rn((float)t, x.s.scale, before);
        least = least_before;
#pragma unroll
        for (int h = 0; h < (R::halves ? 2 : 1) && R::minima; h++)
            least = __fmaf_rn(min[h], scaled_sum[h], least);
    }
    if (!there || place != HALF_BLOCKS - 1)
        return;
    to[0] = {gpu_super_scale<R>(book, w.super_d), sum};
    if constexpr (R::minima)
        to[1] = {-f32_of_half_bits((uint16_t)w.super_m), least};
}

/* The links of a strip, whose first unit is `begin` of n. All lanes come. */
template <class R, bool WHOLE>
__device__ __forceinline__ void link_strip(const struct factors &f, int row, int token, int begin, int n,
                                           struct link *to)
{
    const int lane = threadIdx.x % LANES;
    struct row_block<R> w[R::of_lane];
#pragma unroll
    for (int j = 0; j < R::of_lane; j++) /* all of them are under way before the first is used */
        if (begin + j * LANES + lane < n)
            load_block<R, true, WHOLE>(f, row, begin + j * LANES + lane, n, &w[j]);
#pragma unroll
    for (int j = 0; j < R::of_lane; j++) {
        const int b = begin + j * LANES + lane;
        struct x_block x = {};
        if (b < n)
            x = load_x(f, (int64_t)token * n + b);
        struct link *at = to + (j * LANES + lane) / R::group * R::links;
        if constexpr (R::k)
            link_half<R>(f.book, b < n, w[j], x, at);
        else if (b < n)
            link_block<R>(f.book, w[j], x, at);
    }
}

/* ---- float rows ---- */

/* Value i (a constant) of 16 bytes. */
template <enum dtype T> __device__ __forceinline__ float float_of(const uint32_t word[4], int i)
{
    if constexpr (T == DT_F32) {
        return __uint_as_float(word[i]);
    } else {
        const uint32_t half = word[i / 2] >> 16 * (i % 2) & 0xffff;
        return T == DT_F16 ? f32_of_half_bits((uint16_t)half) : f32_of_bf16_bits((uint16_t)half);
    }
}

/* A whole segment, where rows of x lie on 16 bytes. Of the row 32 values are under way before the first is used: more
 * of the shorter types would need more registers than there are. */
template <enum dtype T> __device__ __forceinline__ float sum_segment(const uint8_t *w, const float *x)
{
    constexpr int batch = T == DT_F32 ? 8 : 4, values = T == DT_F32 ? 4 : 8; /* of 16 bytes */
    float sum = 0;
#pragma unroll 1
    for (int first = 0; first < FLOAT_SEGMENT; first += batch * values) {
        uint4 v[batch];
#pragma unroll
        for (int i = 0; i < batch; i++)
            v[i] = *((const uint4 *)w + first / values + i);
#pragma unroll
        for (int i = 0; i < batch; i++) {
            const uint32_t word[4] = {v[i].x, v[i].y, v[i].z, v[i].w};
#pragma unroll
            for (int j = 0; j < values; j += 4) {
                const float4 four = *(const float4 *)(x + first + i * values + j);
                sum = __fmaf_rn(float_of<T>(word, j), four.x, sum);
                sum = __fmaf_rn(float_of<T>(word, j + 1), four.y, sum);
                sum = __fmaf_rn(float_of<T>(word, j + 2), four.z, sum);
                sum = __fmaf_rn(float_of<T>(word, j + 3), four.w, sum);
            }
        }
    }
    return sum;
}

/* The same for float rows: each segment's sum is added as it is. */
template <enum dtype T, bool WHOLE>
__device__ __forceinline__ void link_segments(const struct factors &f, int row, int token, int begin, int n,
                                              struct link *to)
{
    const uint8_t *w = f.top + row * f.top_bytes;
    const float *x = f.f32 + (int64_t)token * f.cols;
    for (int s = begin + (int)threadIdx.x % LANES; s < n && s < begin + STRIP_LINKS; s += LANES) {
        const int first = s * FLOAT_SEGMENT, end = first + FLOAT_SEGMENT;
        float sum = 0;
        if (WHOLE || (end <= f.cols && f.cols % 4 == 0))
            sum = sum_segment<T>(w + (int64_t)first * (T == DT_F32 ? 4 : 2), x + first);
        else
#pragma unroll 1
            for (int c = first; c < end && c < f.cols; c++)
                sum = __fmaf_rn(file_weight<T>(w, c), x[c], sum);
        to[s - begin] = {sum, 1.0f};
    }
}

/* ---- pairs ---- */

template <enum dtype T, bool PLANES> constexpr auto chain_of()
{
    if constexpr (is_float(T))
        return float_chain_t<T>{};
    else
        return chain_t<T, PLANES>{};
}

__device__ __forceinline__ float follow(const struct link *link, int n, float sum)
{
#pragma unroll 8 /* the reads run ahead of the chain */
    for (int i = 0; i + 2 <= n; i += 2) {
        const float4 two = *(const float4 *)(link + i);
        sum = __fmaf_rn(two.z, two.w, __fmaf_rn(two.x, two.y, sum));
    }
    return n % 2 ? __fmaf_rn(link[n - 1].a, link[n - 1].b, sum) : sum;
}

/* Of a launch for shares: what those read. */
struct share_rows {
    struct gpu_shares shares;
    struct acts x, gathered;
    bool ups;
    enum dtype type;
};

__device__ __forceinline__ const struct neuron_rows &rows_of(const struct share_rows &w, const struct gpu_set &set)
{
    return w.ups ? set.up_rows : set.gate_rows;
}

/* Rows and tokens of share i. */
__device__ __forceinline__ struct factors factors_of(const struct share_rows &w, int i, const struct gpu_book &book)
{
    const struct gpu_share s = w.shares.of[i];
    const struct neuron_rows &m = rows_of(w, w.shares.sets[s.set]);
    const struct acts &x = s.whole ? w.x : w.gathered;
    const int64_t first = s.whole ? 0 : s.first * x.cols;
    return {m.top, m.rest, (int64_t)m.top_bytes, (int64_t)m.rest_bytes, (int)x.cols, x.codes + first,
            x.blocks + first / ACT_BLOCK, x.f32 + first, book};
}

/* The products of the pairs that the lanes in `wanted` have; all lanes come. SHARES: each of its share's. */
template <enum dtype T, bool PLANES, bool WHOLE, bool SHARES>
__device__ __forceinline__ float products_of(const struct factors &all, const struct share_rows &shares,
                                             unsigned wanted, int row, int token, int share,
                                             struct link (*links)[LINKS_STRIDE])
{
    using chain = decltype(chain_of<T, PLANES>());
    constexpr int strip = LANES * chain::of_lane;
    const int lane = threadIdx.x % LANES, n = (all.cols + chain::columns - 1) / chain::columns;
    float sum = 0;
    for (int begin = 0; begin < n; begin += strip) {
        for (unsigned left = wanted; left; left &= left - 1) {
            const int i = __ffs((int)left) - 1;
            const int of_row = __shfl_sync(FULL_MASK, row, i), of_token = __shfl_sync(FULL_MASK, token, i);
            const int of_share = SHARES ? __shfl_sync(FULL_MASK, share, i) : 0;
            const struct factors f = SHARES ? factors_of(shares, of_share, all.book) : all;
            if constexpr (chain::columns == FLOAT_SEGMENT)
                link_segments<T, WHOLE>(f, of_row, of_token, begin, n, links[i]);
            else
                link_strip<chain, WHOLE>(f, of_row, of_token, begin, n, links[i]);
        }
        __syncwarp(FULL_MASK);
        if (wanted >> lane & 1)
            sum = follow(links[lane], (n - begin < strip ? n - begin : strip) / chain::group * chain::links, sum);
        __syncwarp(FULL_MASK);
    }
    return sum;
}

/* What becomes of the products: gates, or, where h is set, activations. */
struct results {
    const float *bias;
    enum activation activation;
    bool all;
    const int32_t *slot;
    float *h;
    int64_t h_stride;
    struct gpu_counts *counts;
};

/* The same of a pair of share i. *weight: of its token. False: the share's rows have another type. */
__device__ __forceinline__ bool take_results(const struct share_rows &w, int i, int token, struct results &to,
                                             float *weight)
{
    const struct gpu_share s = w.shares.of[i];
    const struct gpu_set &set = w.shares.sets[s.set];
    to.bias = w.ups ? set.up_bias : set.bias;
    to.slot = set.slot;
    to.h = to.h ? to.h + s.slots : NULL;
    to.h_stride = set.slots;
    *weight = w.shares.weight[s.first + (uint32_t)token];
    return rows_of(w, set).type == w.type;
}

/* Thread blocks stride over the pairs, of which only the GPU knows how many there are; neighbours, which may have one
 * row, go to one thread block. */
template <enum dtype T, bool PLANES, bool WHOLE, bool SHARES>
__global__ void __launch_bounds__(WARPS * LANES, BLOCKS_OF_SM)
multiply_pairs(struct factors f, struct gpu_pairs pairs, int64_t most, struct results given, struct share_rows shares)
{
    __shared__ __align__(16) struct link links[WARPS][AT_ONCE][LINKS_STRIDE];
    __shared__ unsigned computed;
    const int lane = threadIdx.x % LANES, warp = threadIdx.x / LANES;
    if (threadIdx.x == 0)
        computed = 0;
    __syncthreads();
    gpu_begin();
    const int64_t n = *pairs.n, step = (int64_t)gridDim.x * WARPS;
    for (int64_t first = (int64_t)blockIdx.x * WARPS + warp; first < most; first += AT_ONCE * step) {
        const int64_t i = first + lane * step;
        const bool there = lane < AT_ONCE && i < most; /* what is there is read while n is still on its way */
        const int row = there ? pairs.row[i] : 0, token = there ? pairs.token[i] : 0;
        const int share = SHARES && there ? pairs.share[i] : 0;
        const float gate = there && given.h ? pairs.gate[i] : 0;
        if (first >= n)
            break;
        struct results to = given;
        float weight = 1;
        bool wanted = there && i < n && (!given.h || given.all || !(gate <= 0));
        if (SHARES && wanted)
            wanted = take_results(shares, share, token, to, &weight);
        const unsigned lanes = __ballot_sync(FULL_MASK, wanted);
        const int slot = wanted && to.h ? to.slot[row] : 0;
        const float bias = wanted && to.bias ? to.bias[row] : 0;
        float product = products_of<T, PLANES, WHOLE, SHARES>(f, shares, lanes, row, token, share, links[warp]);
        product = to.bias ? __fadd_rn(product, bias) : product;
        if (wanted && to.h)
            to.h[token * to.h_stride + slot] = __fmul_rn(gpu_activation(to.activation, true, gate, product), weight);
        else if (wanted)
            pairs.gate[i] = product;
        if (lane == 0)
            atomicAdd(&computed, (unsigned)__popc(lanes));
    }
    __syncthreads();
    if (threadIdx.x == 0 && computed && given.counts) {
        atomicAdd(&given.counts->live, (unsigned long long)computed);
        atomicAdd(&given.counts->rows_read, (unsigned long long)computed);
    }
}

/* Layers without a gate: the activation of what is there. */
__global__ void activate_gates(struct gpu_pairs pairs, struct results to)
{
    gpu_begin();
    const int64_t n = *pairs.n, step = (int64_t)gridDim.x * blockDim.x;
    for (int64_t first = (int64_t)blockIdx.x * blockDim.x; first < n; first += step) {
        const int64_t i = first + threadIdx.x;
        const bool wanted = i < n && (to.all || !(pairs.gate[i] <= 0));
        const unsigned lanes = __ballot_sync(FULL_MASK, wanted);
        if (wanted)
            to.h[pairs.token[i] * to.h_stride + to.slot[pairs.row[i]]] =
                gpu_activation(to.activation, false, 0, pairs.gate[i]);
        if (threadIdx.x % LANES == 0 && lanes && to.counts)
            atomicAdd(&to.counts->live, (unsigned long long)__popc(lanes));
    }
}

template <enum dtype T, bool PLANES, bool SHARES>
void launch(const struct gpu *g, const struct neuron_rows *m, const struct acts *x, int64_t most,
            const struct gpu_pairs *pairs, const struct results &to, const struct share_rows &shares)
{
    const int64_t blocks = (most + WARPS - 1) / WARPS, fit = (int64_t)g->n_sms * BLOCKS_OF_SM;
    auto *kernel = in_whole_chunks(m) ? multiply_pairs<T, PLANES, true, SHARES>
                                      : multiply_pairs<T, PLANES, false, SHARES>;
    LAUNCH(kernel, (unsigned)(blocks < fit ? blocks : fit), WARPS * LANES, 0, g,
           factors_of(m, x), *pairs, most, to, shares);
}

template <bool SHARES>
void multiply_rows(const struct gpu *g, const struct neuron_rows *m, const struct acts *x, int64_t most,
                   const struct gpu_pairs *pairs, const struct results &to, const struct share_rows &shares)
{
    if (!most)
        return;
    with_float_type(m->type, [&](auto t) {
        launch<decltype(t)::value, false, SHARES>(g, m, x, most, pairs, to, shares);
    });
    with_type(m->type, [&](auto t) {
        constexpr enum dtype type = decltype(t)::value;
        if (m->planes)
            launch<type, row_t<type, false>::can_have_planes, SHARES>(g, m, x, most, pairs, to, shares);
        else
            launch<type, false, SHARES>(g, m, x, most, pairs, to, shares);
    });
}

/* The pairs of shares, whose rows of this type have planes or not. */
void multiply_share_rows(const struct gpu *g, const struct gpu_shares *s, enum dtype type, bool ups,
                         const struct acts *x, const struct acts *gathered, int64_t most, const struct gpu_pairs *pairs,
                         const struct results &to)
{
    struct neuron_rows m = {};
    m.type = type;
    m.cols = x->cols;
    m.planes = ups ? s->up_planes : s->gate_planes;
    multiply_rows<true>(g, &m, x, most, pairs, to, {*s, *x, *gathered, ups, type});
}

}

void gpu_gate_pairs(const struct gpu *g, const struct neuron_rows *m, const struct acts *x, const float *bias,
                    int64_t most, const struct gpu_pairs *pairs)
{
    struct results to = {};
    to.bias = bias;
    multiply_rows<false>(g, m, x, most, pairs, to, {});
}

void gpu_activate_pairs(const struct gpu *g, enum activation a, const struct neuron_rows *up, const float *up_bias,
                        const struct acts *x, bool all, int64_t most, const struct gpu_pairs *pairs,
                        const int32_t *slot, float *h, int64_t h_stride, struct gpu_counts *counts)
{
    const struct results to = {up_bias, a, all, slot, h, h_stride, counts};
    const int64_t blocks = (most + LANES * WARPS - 1) / (LANES * WARPS);
    if (up)
        multiply_rows<false>(g, up, x, most, pairs, to, {});
    else if (most)
        LAUNCH(activate_gates, (unsigned)(blocks < 4 * g->n_sms ? blocks : 4 * g->n_sms), LANES * WARPS, 0, g,
               *pairs, to);
}

void gpu_gate_share_pairs(const struct gpu *g, const struct gpu_shares *s, enum dtype type, const struct acts *x,
                          const struct acts *gathered, int64_t most, const struct gpu_pairs *pairs)
{
    multiply_share_rows(g, s, type, false, x, gathered, most, pairs, {});
}

void gpu_activate_share_pairs(const struct gpu *g, const struct gpu_shares *s, enum dtype type, enum activation a,
                              const struct acts *x, const struct acts *gathered, bool all, int64_t most,
                              const struct gpu_pairs *pairs, float *h, struct gpu_counts *counts)
{
    multiply_share_rows(g, s, type, true, x, gathered, most, pairs, {NULL, a, all, NULL, h, 0, counts});
}
