/* Attention over pages of KV cache (kernels.h: rope, attn_scores, attn_weights, attn_mix).
 *
 * Keys lie pairwise by position, [heads, n_pages, dim / 2, KV_PAGE, 2] f16: a warp's lanes are positions, each of whom
 * adds up its own score. Values lie by position, [heads, n_pages, KV_PAGE, dim] f16: lanes are values there. */
#ifndef HEARTH_KERNELS_CUDA_ATTENTION_H
#define HEARTH_KERNELS_CUDA_ATTENTION_H

#include "kernels/cuda/gpu.h"
#include "kernels/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { GPU_HEAD_DIM = 512 };           /* values of a head, at most */

/* The tokens of a step. Token t stands at position[t] of a sequence whose pages are tables[table[t] + position /
 * KV_PAGE]; of pages at which no token looks that may be any number. A token that has the table of the one before, and
 * the position after it, is its next in a run. */
struct gpu_batch {
    int64_t n;
    const uint32_t *position, *table; /* [n] */
    const uint32_t *tables;
    const float *cos_sin;             /* [n, 2 * half] */
    const float *temper;              /* [n] that queries are multiplied by once they are rotated; NULL: they are not */
    uint32_t most_positions;          /* host: an upper bound of position + 1; launches are laid out for it */
};

struct gpu_heads {
    int64_t n_kv, shared, dim;        /* own KV heads, query heads of each, a head's values: a multiple of 8 */
    int64_t half;                     /* pairs that are rotated; 0: none */
    bool neox;
    int64_t window;                   /* 0: none */
    float eps;                        /* of head norms */
    float scale, softcap;             /* of scores; 0: they are not capped */
    const float *q_bias, *k_bias, *v_bias, *q_norm, *k_norm; /* or NULL */
    const float *sinks;               /* [n_kv * shared] or NULL */
    uint16_t *k, *v;
    int64_t n_pages;
};

/* Bias, head norm and rotation of q [n, n_kv * shared * dim] and k [n, n_kv * dim] in place; bias of v likewise; k and
 * v, as f16, into the cache. */
void gpu_rotate(const struct gpu *g, const struct gpu_batch *b, const struct gpu_heads *h, float *q, float *k, float *v,
                const struct gpu_clearing *clearing);

/* Bytes of scratch that attention of up to n tokens over up to n_ctx positions takes; few: it may go token by token. What
 * is enough for some KV heads is for fewer. */
uint64_t gpu_attention_scratch(const struct gpu_heads *h, int64_t n, uint32_t n_ctx);
/* mixed->f32 [n, n_kv * shared * dim] = attention of q; then quantised where asked. scratch as above, for h or one
 * with more KV heads, n or more, and n_ctx; it begins on a multiple of 256. */
void gpu_attend(const struct gpu *g, const struct gpu_batch *b, const struct gpu_heads *h, const float *q,
                void *scratch, uint32_t n_ctx, const struct acts *mixed, bool quantise);

/* A layer's keys and values of a page into another page. */
void gpu_copy_page(const struct gpu *g, const struct gpu_heads *h, uint32_t from, uint32_t to);

#ifdef __cplusplus
}
#endif

#endif
