/* How the residual stream begins, is quantised, and grows. */
#include "kernels/cuda/file_weights.cuh"
#include "kernels/cuda/stream.cuh"

namespace {

enum {
    THREADS = 256,
    FEW_THREADS = 128, /* where one token must reach many multiprocessors */
};

unsigned blocks_of(int64_t n, int threads) { return (unsigned)((n + threads - 1) / threads); }

__device__ __forceinline__ int64_t thread_index() { return (int64_t)blockIdx.x * blockDim.x + threadIdx.x; }

/* ---- how it begins ---- */

/* ADD: to what x has; else times scale. Rows are those of `index`. */
template <enum dtype T, bool ADD>
__global__ void __launch_bounds__(THREADS)
embed(const uint8_t *rows, const uint32_t *index, int d, float scale, float *x, struct gpu_fault fault)
{
    gpu_begin();
    const int i = (int)(blockIdx.y * THREADS + threadIdx.x);
    if (i >= d)
        return;
    const int64_t at = (int64_t)blockIdx.x * d + i;
    const float w = file_weight<T>(rows + index[blockIdx.x] * file_row_bytes<T>(d), i);
    const float value = ADD ? __fadd_rn(x[at], w) : __fmul_rn(w, scale);
    x[at] = value;
    if (!gpu_is_number(value))
        gpu_note(fault, (uint32_t)at);
}

template <bool ADD>
void embed_rows(const struct gpu *g, enum dtype type, const uint8_t *rows, const uint32_t *index, int64_t n,
                const struct gpu_embedding *e, float *x, struct gpu_fault fault)
{
    const dim3 grid((unsigned)n, blocks_of(e->d, THREADS));
    with_weight_type(type, [&](auto t) {
        LAUNCH((embed<decltype(t)::value, ADD>), grid, THREADS, 0, g, rows, index, (int)e->d, e->scale, x, fault);
    });
}

__global__ void __launch_bounds__(THREADS) check(const float *x, int64_t n, struct gpu_fault fault)
{
    gpu_begin();
    const int64_t i = thread_index();
    if (i < n && !gpu_is_number(x[i]))
        gpu_note(fault, (uint32_t)i);
}

/* ---- quantising ---- */

__global__ void __launch_bounds__(FEW_THREADS) quantise(struct acts a, int64_t n)
{
    gpu_begin();
    const int64_t first = FOUR * thread_index();
    const float4 four = first < n ? *(const float4 *)(a.f32 + first) : make_float4(0, 0, 0, 0);
    const float v[FOUR] = {four.x, four.y, four.z, four.w};
    quantise_four(a, first, v, first >= n);
}

__global__ void __launch_bounds__(FEW_THREADS) complete(struct acts a, int64_t n)
{
    gpu_begin();
    const int64_t first = FOUR * thread_index();
    const struct code_sums sum = sum_codes(first < n ? *(const int *)(a.codes + first) : 0);
    if (first < n && threadIdx.x % BLOCK_THREADS == 0) {
        struct act_block *block = &a.blocks[first / ACT_BLOCK];
        store_block(block, block->scale, sum);
    }
}

__global__ void __launch_bounds__(THREADS) take_scales(const struct act_block *blocks, int64_t n, float *scale)
{
    gpu_begin();
    const int64_t i = thread_index();
    if (i < n)
        scale[i] = blocks[i].scale;
}

__global__ void __launch_bounds__(THREADS) give_scales(const float *scale, int64_t n, struct act_block *blocks)
{
    gpu_begin();
    const int64_t i = thread_index();
    if (i < n)
        blocks[i].scale = scale[i];
}

/* ---- how it grows ---- */

/* A token's sum i of d, with the biases of its experts. */
__device__ __forceinline__ float with_expert_biases(const struct adding &w, int64_t token, int i, int64_t d, float sum)
{
    const struct gpu_expert_bias &e = w.a.experts;
    for (int k = 0; e.bias && k < e.used; k++)
        sum = __fadd_rn(sum, __fmul_rn(e.routes.weight[token * e.n_weights + k],
                                       e.bias[e.routes.expert[token * e.used + k] * d + i]));
    return sum;
}

__global__ void __launch_bounds__(FEW_THREADS) add(struct adding w, int d)
{
    gpu_begin();
    const int i = (int)(blockIdx.y * FEW_THREADS + threadIdx.x);
    if (i >= d)
        return;
    const int64_t at = (int64_t)blockIdx.x * d + i;
    const float sum = with_expert_biases(w, blockIdx.x, i, d,
                                         sum_of_units(w.units[at], i == 0 && w.broken[blockIdx.x]));
    const float x = w.a.waits ? 0 : w.x[at], bias = w.a.bias ? w.a.bias[i] : 0;
    const float y = w.a.y && !w.a.waits ? w.a.y[at] : 0;
    (w.a.waits ? w.a.y : w.x)[at] = added(w, at, x, sum, bias, y);
}

/* ---- how it ends ---- */

__global__ void __launch_bounds__(THREADS)
    finish_logits(float *logits, int64_t n, float scale, float cap, float inverse)
{
    gpu_begin();
    const int64_t i = thread_index();
    if (i >= n)
        return;
    const float scaled = __fmul_rn(logits[i], scale);
    logits[i] = cap > 0 ? gpu_softcap(scaled, cap, inverse) : scaled;
}

}

void gpu_embed(const struct gpu *g, const struct gpu_embedding *e, const int32_t *tokens, const uint32_t *position,
               int64_t n, float *x, struct gpu_fault fault)
{
    if (n == 0)
        return;
    embed_rows<false>(g, e->type, e->rows, (const uint32_t *)tokens, n, e, x, fault);
    if (e->positions)
        embed_rows<true>(g, e->positions_type, e->positions, position, n, e, x, fault);
}

void gpu_check(const struct gpu *g, const float *x, int64_t n, int64_t d, struct gpu_fault fault)
{
    if (n > 0)
        LAUNCH(check, blocks_of(n * d, THREADS), THREADS, 0, g, x, n * d, fault);
}

void gpu_quantize(const struct gpu *g, const struct acts *a, int64_t n)
{
    if (n > 0)
        LAUNCH(quantise, blocks_of(n * a->cols / FOUR, FEW_THREADS), FEW_THREADS, 0, g, *a, n * a->cols);
}

void gpu_sum_blocks(const struct gpu *g, const struct acts *a, int64_t n)
{
    if (n > 0)
        LAUNCH(complete, blocks_of(n * a->cols / FOUR, FEW_THREADS), FEW_THREADS, 0, g, *a, n * a->cols);
}

void gpu_add(const struct gpu *g, const struct gpu_sums *sums, const struct gpu_addition *a, int64_t n, int64_t d,
             float *x, struct gpu_fault fault)
{
    const struct adding w = {sums->units, sums->broken, *a, x, fault};
    if (n > 0 && a->norm)
        add_normed(g, w, n, d);
    else if (n > 0)
        LAUNCH(add, dim3((unsigned)n, blocks_of(d, FEW_THREADS)), FEW_THREADS, 0, g, w, (int)d);
}

void gpu_finish_logits(const struct gpu *g, float *logits, int64_t n, float scale, float cap)
{
    const float inverse = cap > 0 ? 1.0f / cap : 0;
    if (n > 0)
        LAUNCH(finish_logits, blocks_of(n, THREADS), THREADS, 0, g, logits, n, scale, cap, inverse);
}

void gpu_take_scales(const struct gpu *g, const struct act_block *blocks, int64_t n, float *scale)
{
    if (n > 0)
        LAUNCH(take_scales, blocks_of(n, THREADS), THREADS, 0, g, blocks, n, scale);
}

void gpu_give_scales(const struct gpu *g, const float *scale, int64_t n, struct act_block *blocks)
{
    if (n > 0)
        LAUNCH(give_scales, blocks_of(n, THREADS), THREADS, 0, g, scale, n, blocks);
}
