/* Queries, keys and values on their way from the products to attention: bias, head norm, rotation, cache. */
#include "kernels/cuda/attention.h"
#include "kernels/cuda/rotate.cuh"

enum {
    ROTATE_WARPS = 4,  /* of a thread block; a warp has a head of a token */
    COPY_THREADS = 256,
    VECTOR = 8,        /* f16 of 16 bytes */
};

struct rotating {
    const uint32_t *position, *table, *tables;
    const float *cos_sin, *temper;     /* temper: NULL: none */
    float *q, *k, *v;                  /* [n, heads, dim] */
    const float *q_bias, *k_bias, *v_bias, *q_norm, *k_norm;
    uint16_t *keys, *values;           /* the cache */
    int64_t n_pages;
    int n_q, n_kv, dim, half;
    bool neox;
    float eps;
    struct gpu_clearing clearing;
};

/* What is done to one head of a token. */
struct vector {
    float *x;                          /* [dim] */
    const float *bias, *norm;          /* [dim] or NULL */
    uint16_t *cache;                   /* the head's pages, or NULL */
    bool rotated, pairs;               /* pairs: as keys lie in a page */
};

static __device__ __forceinline__ const float *part(const float *bias, int head, int dim)
{
    return bias ? bias + head * dim : NULL;
}

static __device__ __forceinline__ struct vector vector_of(const struct rotating &a, int token, int i)
{
    const int q = a.n_q, kv = a.n_kv;
    if (i < q)
        return {a.q + ((int64_t)token * q + i) * a.dim, part(a.q_bias, i, a.dim), a.q_norm, NULL, true, false};
    const bool key = i < q + kv;
    const int h = key ? i - q : i - q - kv;
    const int64_t at = ((int64_t)token * kv + h) * a.dim, pages = h * a.n_pages * KV_PAGE * a.dim;
    if (key)
        return {a.k + at, part(a.k_bias, h, a.dim), a.k_norm, a.keys + pages, true, true};
    return {a.v + at, part(a.v_bias, h, a.dim), NULL, a.values + pages, false, false};
}

static __device__ __forceinline__ float4 added(float4 x, float4 y)
{
    return make_float4(__fadd_rn(x.x, y.x), __fadd_rn(x.y, y.y), __fadd_rn(x.z, y.z), __fadd_rn(x.w, y.w));
}

static __device__ __forceinline__ float4 multiplied(float4 x, float by)
{
    return make_float4(__fmul_rn(x.x, by), __fmul_rn(x.y, by), __fmul_rn(x.z, by), __fmul_rn(x.w, by));
}

/* Thread block (heads, token). What does not depend on anything is read first: it takes long to come. */
static __global__ void __launch_bounds__(ROTATE_WARPS * LANES) rotate_heads(struct rotating a)
{
    SHARED_BYTES(shared);
    const int warp = threadIdx.x / LANES, lane = threadIdx.x % LANES, head = blockIdx.x * ROTATE_WARPS + warp;
    const int token = blockIdx.y;
    const bool is_head = head < a.n_q + 2 * a.n_kv;
    const struct vector v = vector_of(a, token, head);
    const uint32_t position = a.position[token], table = a.table[token];
    const float *angles = a.cos_sin + (int64_t)token * 2 * a.half;
    const bool mine = is_head && v.rotated && lane < a.half;
    const float by = a.temper && !v.cache ? a.temper[token] : 1.0f; /* times 1 changes nothing */
    const float c = mine ? angles[lane] : 0.0f, s = mine ? angles[a.half + lane] : 0.0f;
    gpu_begin();
    gpu_clear(a.clearing);
    if (!is_head)
        return;
    float *x = (float *)shared + warp * a.dim;
    for (int i = lane; i < a.dim / 4; i += LANES) {
        const float4 four = ((const float4 *)v.x)[i];
        ((float4 *)x)[i] = v.bias ? added(four, ((const float4 *)v.bias)[i]) : four;
    }
    const uint32_t page = v.cache ? a.tables[table + position / KV_PAGE] : 0;
    __syncwarp(FULL_MASK);
    if (v.norm) {
        const float scale = norm_scale(x, a.dim, a.eps);
        for (int i = lane; i < a.dim; i += LANES)
            x[i] = __fmul_rn(__fmul_rn(x[i], scale), v.norm[i]);
    }
    __syncwarp(FULL_MASK);
    if (mine)
        rotate(x, lane, a.half, a.neox, c, s);
    for (int i = lane + LANES; v.rotated && i < a.half; i += LANES)
        rotate(x, i, a.half, a.neox, angles[i], angles[a.half + i]);
    __syncwarp(FULL_MASK);
    for (int i = lane; i < a.dim / 4; i += LANES) {
        const float4 four = multiplied(((const float4 *)x)[i], by);
        ((float4 *)v.x)[i] = four;
        if (v.cache)
            keep(v.cache + (int64_t)page * KV_PAGE * a.dim, v.pairs, a.dim, 4 * i, position % KV_PAGE, four);
    }
}

void gpu_rotate(const struct gpu *g, const struct gpu_batch *b, const struct gpu_heads *h, float *q, float *k, float *v,
                const struct gpu_clearing *clearing)
{
    struct rotating a = {};
    a.position = b->position;
    a.table = b->table;
    a.tables = b->tables;
    a.cos_sin = b->cos_sin;
    a.temper = b->temper;
    a.q = q;
    a.k = k;
    a.v = v;
    a.q_bias = h->q_bias;
    a.k_bias = h->k_bias;
    a.v_bias = h->v_bias;
    a.q_norm = h->q_norm;
    a.k_norm = h->k_norm;
    a.keys = h->k;
    a.values = h->v;
    a.n_pages = h->n_pages;
    a.n_q = (int)(h->n_kv * h->shared);
    a.n_kv = (int)h->n_kv;
    a.dim = (int)h->dim;
    a.half = (int)h->half;
    a.neox = h->neox;
    a.eps = h->eps;
    a.clearing = *clearing;
    const dim3 grid((unsigned)(a.n_q + 2 * a.n_kv + ROTATE_WARPS - 1) / ROTATE_WARPS, (unsigned)b->n);
    const size_t shared = ROTATE_WARPS * (size_t)a.dim * sizeof(float);
    LAUNCH(rotate_heads, grid, dim3(ROTATE_WARPS * LANES), shared, g, a);
}

/* Thread block (KV head, keys or values). */
static __global__ void __launch_bounds__(COPY_THREADS) copy_page(uint4 *keys, uint4 *values, int64_t n_pages,
                                                                 int key, int value, uint32_t from, uint32_t to)
{
    gpu_begin();
    const int vectors = blockIdx.y ? value : key; /* of a page */
    uint4 *head = (blockIdx.y ? values : keys) + (int64_t)blockIdx.x * n_pages * vectors;
    for (int i = threadIdx.x; i < vectors; i += COPY_THREADS)
        head[(int64_t)to * vectors + i] = head[(int64_t)from * vectors + i];
}

void gpu_copy_page(const struct gpu *g, const struct gpu_heads *h, uint32_t from, uint32_t to)
{
    const int key = (int)(KV_PAGE * h->dim / VECTOR), value = (int)(KV_PAGE * h->value / VECTOR);
    LAUNCH(copy_page, dim3((unsigned)h->n_kv, 2), dim3(COPY_THREADS), 0, g, (uint4 *)h->k, (uint4 *)h->v,
           h->n_pages, key, value, from, to);
}
