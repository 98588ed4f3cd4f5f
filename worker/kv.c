/* The KV cache, f16, in pages of KV_PAGE positions: keys interleaved by tiles of positions, a score's lane being a
 * position; values by position. Heads are counted among the rank's own. */
#include <string.h>

#include "worker/internal.h"

int64_t kv_pages(const struct worker *w) { return ((int64_t)w->o.n_ctx + KV_PAGE - 1) / KV_PAGE; }

size_t kv_elements(const struct worker *w, const struct heads *h)
{
    return (size_t)(kv_pages(w) * (h->end - h->begin) * KV_PAGE * w->o.model->hp.head_dim);
}

/* Where a head has a page of a layer's keys, or values. */
static int64_t page_at(const struct worker *w, const struct heads *own, int64_t page, int64_t head)
{
    return (page * (own->end - own->begin) + head) * KV_PAGE * w->o.model->hp.head_dim;
}

void kv_store(const struct worker *w, const struct heads *own, uint32_t position, const float *k, const float *v)
{
    const int64_t dim = w->o.model->hp.head_dim, i = position % KV_PAGE;
    uint16_t half[MOST_HEAD_DIM];
    for (int64_t h = 0; h < own->end - own->begin; h++) {
        const int64_t page = page_at(w, own, position / KV_PAGE, h);
        uint16_t *key = own->k_cache + page + i / KV_TILE * KV_TILE * dim + i % KV_TILE;
        w->o.kernels->to_f16(k + h * dim, dim, half);
        for (int64_t d = 0; d < dim; d++)
            key[d * KV_TILE] = half[d];
        w->o.kernels->to_f16(v + h * dim, dim, own->v_cache + page + i * dim);
    }
}

const uint16_t *kv_keys(const struct worker *w, const struct heads *own, int64_t page, int64_t head)
{
    return own->k_cache + page_at(w, own, page, head);
}

const uint16_t *kv_values(const struct worker *w, const struct heads *own, int64_t page, int64_t head)
{
    return own->v_cache + page_at(w, own, page, head);
}
