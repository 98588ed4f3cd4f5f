#include "device/cpu/kv.h"

#include <string.h>

#include "device/decisions.h"

void kv_lay(struct cpu *c, struct kv *kv, int64_t heads)
{
    *kv = (struct kv){.heads = kept_heads(c->hp, heads), .key = kept_key(c->hp), .value = kept_value(c->hp),
                      .n_pages = c->o.n_pages};
    const size_t positions = (size_t)(kv->heads * kv->n_pages * KV_PAGE);
    kv->k = arena_alloc(&c->arena, positions * (size_t)kv->key * sizeof *kv->k);
    kv->v = arena_alloc(&c->arena, positions * (size_t)kv->value * sizeof *kv->v);
}

void kv_store(const struct kv *kv, const struct kernels *kernels, uint32_t page, uint32_t place, const float *k,
              const float *v)
{
    const int64_t key = kv->key, value = kv->value;
    uint16_t half[MOST_HEAD_DIM];
    for (int64_t h = 0; h < kv->heads; h++) {
        uint16_t *tile = kv_keys(kv, page, h) + place / KV_TILE * KV_TILE * key + place % KV_TILE;
        kernels->to_f16(k + h * key, key, half);
        for (int64_t d = 0; d < key; d++)
            tile[d * KV_TILE] = half[d];
        kernels->to_f16(v + h * value, value, kv_values(kv, page, h) + place * value);
    }
}

void kv_keep(const struct kv *kv, const struct kernels *kernels, const struct batch *b, uint32_t t, const float *k,
             const float *v)
{
    const struct run *r = batch_run(b, &t);
    const uint32_t position = r->position + t;
    kv_store(kv, kernels, kv_table(b, r)[position / KV_PAGE], position % KV_PAGE, k, v);
}

void kv_copy_page(const struct kv *kv, uint32_t from, uint32_t to)
{
    const size_t page = KV_PAGE * sizeof *kv->k;
    for (int64_t h = 0; h < kv->heads; h++) {
        memcpy(kv_keys(kv, to, h), kv_keys(kv, from, h), page * (size_t)kv->key);
        memcpy(kv_values(kv, to, h), kv_values(kv, from, h), page * (size_t)kv->value);
    }
}
