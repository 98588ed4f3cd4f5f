/* A layer's keys and values of the own KV heads, f16, in pages of KV_PAGE positions: keys interleaved by tiles of
 * KV_TILE positions, a score's lane being a position; values by position. Heads are counted among the own ones. */
#ifndef HEARTH_DEVICE_CPU_KV_H
#define HEARTH_DEVICE_CPU_KV_H

#include "device/cpu/cpu.h"

_Static_assert((int)DEVICE_PAGE == KV_PAGE, "pages have one size");

enum { MOST_HEAD_DIM = 1024 }; /* values of a head, so that one converts on the stack */

struct kv {
    int64_t heads, dim, n_pages;
    /* A head's pages follow each other: a sequence that got its pages one after the other is read straight through. */
    uint16_t *k;                     /* [heads, n_pages, KV_PAGE / KV_TILE, dim, KV_TILE] */
    uint16_t *v;                     /* [heads, n_pages, KV_PAGE, dim] */
};

void kv_lay(struct cpu *c, struct kv *kv, int64_t heads);
/* Stores a token's keys and values [heads, dim] at a place of a page. */
void kv_store(const struct kv *kv, const struct kernels *kernels, uint32_t page, uint32_t place, const float *k,
              const float *v);
void kv_copy_page(const struct kv *kv, uint32_t from, uint32_t to);

/* Where a page's part of a head begins, in k or v. */
static inline size_t kv_at(const struct kv *kv, int64_t page, int64_t head)
{
    return (size_t)((head * kv->n_pages + page) * KV_PAGE * kv->dim);
}

#endif
