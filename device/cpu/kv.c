#include "device/cpu/kv.h"

#include <string.h>

void kv_lay(struct cpu *c, struct kv *kv, int64_t heads)
{
    *kv = (struct kv){.heads = heads, .dim = c->hp->head_dim, .n_pages = c->o.n_pages};
    const size_t bytes = kv_at(kv, 0, heads) * sizeof *kv->k;
    kv->k = arena_alloc(&c->arena, bytes);
    kv->v = arena_alloc(&c->arena, bytes);
}

void kv_store(const struct kv *kv, const struct kernels *kernels, uint32_t page, uint32_t place, const float *k,
              const float *v)
{
    const int64_t dim = kv->dim;
    uint16_t half[MOST_HEAD_DIM];
    for (int64_t h = 0; h < kv->heads; h++) {
        uint16_t *tile = kv->k + kv_at(kv, page, h) + place / KV_TILE * KV_TILE * dim + place % KV_TILE;
        kernels->to_f16(k + h * dim, dim, half);
        for (int64_t d = 0; d < dim; d++)
            tile[d * KV_TILE] = half[d];
        kernels->to_f16(v + h * dim, dim, kv->v + kv_at(kv, page, h) + place * dim);
    }
}

void kv_copy_page(const struct kv *kv, uint32_t from, uint32_t to)
{
    const size_t bytes = kv_at(kv, 1, 0) * sizeof *kv->k;
    for (int64_t h = 0; h < kv->heads; h++) {
        memcpy(kv->k + kv_at(kv, to, h), kv->k + kv_at(kv, from, h), bytes);
        memcpy(kv->v + kv_at(kv, to, h), kv->v + kv_at(kv, from, h), bytes);
    }
}
