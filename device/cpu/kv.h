/* A layer's keys and values of the own KV heads, f16, in pages of KV_PAGE positions: keys interleaved by tiles of
 * KV_TILE positions, a score's lane being a position; values by position. Heads are counted among the own ones. */
#ifndef HEARTH_DEVICE_CPU_KV_H
#define HEARTH_DEVICE_CPU_KV_H

#include "device/cpu/cpu.h"

_Static_assert((int)DEVICE_PAGE == KV_PAGE, "pages have one size");

enum { MOST_HEAD_DIM = 1024 }; /* values of a head, so that one converts on the stack */

struct kv {
    int64_t heads, key, value, n_pages; /* values of a head's key, and of what is mixed of it */
    /* A head's pages follow each other: a sequence that got its pages one after the other is read straight through. */
    uint16_t *k;                     /* [heads, n_pages, KV_PAGE / KV_TILE, key, KV_TILE] */
    uint16_t *v;                     /* [heads, n_pages, KV_PAGE, value] */
};

void kv_lay(struct cpu *c, struct kv *kv, int64_t heads);
/* Stores a token's keys and values [heads, key], [heads, value] at a place of a page. */
void kv_store(const struct kv *kv, const struct kernels *kernels, uint32_t page, uint32_t place, const float *k,
              const float *v);
/* The same for the batch's token t. */
void kv_keep(const struct kv *kv, const struct kernels *kernels, const struct batch *b, uint32_t t, const float *k,
             const float *v);
void kv_copy_page(const struct kv *kv, uint32_t from, uint32_t to);

/* A page's keys, or values, of a head. */
static inline uint16_t *kv_keys(const struct kv *kv, int64_t page, int64_t head)
{
    return kv->k + (head * kv->n_pages + page) * KV_PAGE * kv->key;
}
static inline uint16_t *kv_values(const struct kv *kv, int64_t page, int64_t head)
{
    return kv->v + (head * kv->n_pages + page) * KV_PAGE * kv->value;
}

/* A sequence's pages in order. */
static inline const uint32_t *kv_table(const struct batch *b, const struct run *r)
{
    return b->tables + (size_t)r->sequence * b->table_stride;
}

#endif
