/* Latent attention, on the way from the products to attention: of a token c and the turned key into the cache, queries
 * in their two parts. A warp has a query head of a token, or its c. */
#include "kernels/cuda/attention.h"
#include "kernels/cuda/rotate.cuh"

enum { TURN_WARPS = 4 };

struct turning {
    const uint32_t *position, *table, *tables;
    const float *cos_sin, *temper;     /* temper: NULL: none */
    const float *query, *kept;         /* [n, heads, dim], [n, rank + n_rot] */
    const float *c_norm;               /* [rank] */
    float *plain, *q;                  /* [heads, n, dim - n_rot], [n, heads, rank + n_rot] */
    uint16_t *keys, *values;           /* the cache */
    int n, heads, dim, n_rot, rank, room; /* room: values of a warp in shared memory */
    bool neox;
    float eps;
    struct gpu_clearing clearing;
};

/* The pairs from x on, which is shared, by the angles of a token. */
static __device__ __forceinline__ void turn(const struct turning &a, int token, float *x)
{
    const float *angles = a.cos_sin + (int64_t)token * a.n_rot;
    const int half = a.n_rot / 2;
    for (int i = threadIdx.x % LANES; i < half; i += LANES)
        rotate(x, i, half, a.neox, angles[i], angles[half + i]);
}

static __device__ __forceinline__ void part_query(const struct turning &a, int token, int head, float *x)
{
    const int plain = a.dim - a.n_rot, lane = threadIdx.x % LANES;
    const float *from = a.query + ((int64_t)token * a.heads + head) * a.dim;
    float *to = a.plain + ((int64_t)head * a.n + token) * plain;
    float *turned = a.q + ((int64_t)token * a.heads + head) * (a.rank + a.n_rot) + a.rank;
    const float by = a.temper ? a.temper[token] : 1.0f; /* times 1 changes nothing */
    for (int i = lane; i < a.dim; i += LANES)
        x[i] = from[i];
    __syncwarp(FULL_MASK);
    turn(a, token, x + plain);
    __syncwarp(FULL_MASK);
    for (int i = lane; i < a.dim; i += LANES)
        *(i < plain ? to + i : turned + i - plain) = __fmul_rn(x[i], by);
}

static __device__ __forceinline__ void keep_latent(const struct turning &a, int token, float *x)
{
    const int lane = threadIdx.x % LANES, all = a.rank + a.n_rot;
    const float *from = a.kept + (int64_t)token * all;
    const int64_t page = a.tables[a.table[token] + a.position[token] / KV_PAGE];
    const int place = a.position[token] % KV_PAGE;
    for (int i = lane; i < all; i += LANES)
        x[i] = from[i];
    __syncwarp(FULL_MASK);
    const float scale = norm_scale(x, a.rank, a.eps);
    for (int i = lane; i < a.rank; i += LANES)
        x[i] = __fmul_rn(__fmul_rn(x[i], scale), a.c_norm[i]);
    turn(a, token, x + a.rank);
    __syncwarp(FULL_MASK);
    for (int i = lane; i < all / 4; i += LANES) {
        const float4 four = ((const float4 *)x)[i];
        keep(a.keys + page * KV_PAGE * all, true, all, 4 * i, place, four);
        if (4 * i < a.rank)
            keep(a.values + page * KV_PAGE * a.rank, false, a.rank, 4 * i, place, four);
    }
}

/* Thread block (query heads, then c; token). */
static __global__ void __launch_bounds__(TURN_WARPS * LANES) turn_latent(struct turning a)
{
    SHARED_BYTES(shared);
    const int warp = threadIdx.x / LANES, unit = blockIdx.x * TURN_WARPS + warp;
    float *x = (float *)shared + warp * a.room;
    gpu_begin();
    gpu_clear(a.clearing);
    if (unit < a.heads)
        part_query(a, blockIdx.y, unit, x);
    else if (unit == a.heads)
        keep_latent(a, blockIdx.y, x);
}

void gpu_turn_latent(const struct gpu *g, const struct gpu_batch *b, const struct gpu_heads *h,
                     const struct gpu_latent *l, const struct gpu_clearing *clearing)
{
    struct turning a = {};
    a.position = b->position;
    a.table = b->table;
    a.tables = b->tables;
    a.cos_sin = b->cos_sin;
    a.temper = b->temper;
    a.query = l->query;
    a.kept = l->kept;
    a.c_norm = l->c_norm;
    a.plain = l->plain;
    a.q = l->q;
    a.keys = h->k;
    a.values = h->v;
    a.n = (int)b->n;
    a.heads = (int)h->shared;
    a.dim = (int)l->dim;
    a.n_rot = (int)(h->dim - h->value);
    a.rank = (int)h->value;
    a.room = (int)((h->dim > l->dim ? h->dim : l->dim) + 3) / 4 * 4;
    a.neox = h->neox;
    a.eps = h->eps;
    a.clearing = *clearing;
    const dim3 grid((unsigned)(a.heads + 1 + TURN_WARPS - 1) / TURN_WARPS, (unsigned)b->n);
    const size_t shared = TURN_WARPS * (size_t)a.room * sizeof(float);
    LAUNCH(turn_latent, grid, dim3(TURN_WARPS * LANES), shared, g, a);
}
