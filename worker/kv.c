/* The KV cache, f16: keys interleaved by tiles of positions, a score's lane being a position; values by position. Heads
 * are counted among the rank's own. */
#include <string.h>

#include "worker/internal.h"

/* Positions, rounded up to whole tiles. */
static int64_t kv_positions(const struct worker *w)
{
    return ((int64_t)w->o.n_ctx + KV_TILE - 1) / KV_TILE * KV_TILE;
}

size_t kv_elements(const struct worker *w, const struct heads *h)
{
    return (size_t)(kv_positions(w) * (h->end - h->begin) * w->o.model->hp.head_dim);
}

void kv_store(const struct worker *w, const struct heads *own, uint32_t position, const float *k, const float *v)
{
    const int64_t dim = w->o.model->hp.head_dim, positions = kv_positions(w);
    uint16_t half[MOST_HEAD_DIM];
    for (int64_t h = 0; h < own->end - own->begin; h++) {
        uint16_t *tile = own->k_cache + (h * positions + position / KV_TILE * KV_TILE) * dim + position % KV_TILE;
        w->o.kernels->to_f16(k + h * dim, dim, half);
        for (int64_t d = 0; d < dim; d++)
            tile[d * KV_TILE] = half[d];
        w->o.kernels->to_f16(v + h * dim, dim, own->v_cache + (h * positions + position) * dim);
    }
}

const uint16_t *kv_keys(const struct worker *w, const struct heads *own, int64_t head)
{
    return own->k_cache + head * kv_positions(w) * w->o.model->hp.head_dim;
}

const uint16_t *kv_values(const struct worker *w, const struct heads *own, int64_t head)
{
    return own->v_cache + head * kv_positions(w) * w->o.model->hp.head_dim;
}
