/* Attention over pages of KV cache (kernels.h: rope, attn_scores, attn_weights, attn_mix).
 *
 * Keys lie pairwise by position, [heads, n_pages, dim / 2, KV_PAGE, 2] f16: a warp's lanes are positions, each of whom
 * adds up its own score. Values lie by position, [heads, n_pages, KV_PAGE, value] f16: lanes are values there. */
#ifndef HEARTH_KERNELS_CUDA_ATTENTION_H
#define HEARTH_KERNELS_CUDA_ATTENTION_H

#include "kernels/cuda/gpu.h"
#include "kernels/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { GPU_HEAD_DIM = 512, GPU_KEY_DIM = 1024 }; /* values of a head, and of its key where that is longer, at most */

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
    int64_t n_kv, shared;             /* own KV heads, query heads of each */
    int64_t dim, value;               /* values of a query and a key, and of what is mixed: multiples of 8 */
    int64_t half;                     /* pairs that are rotated; 0: none */
    bool neox;
    int64_t window;                   /* 0: none */
    float eps;                        /* of head norms */
    float scale, softcap;             /* of scores; 0: they are not capped */
    const float *q_bias, *k_bias, *v_bias, *q_norm, *k_norm; /* or NULL */
    const float *sinks;               /* [n_kv * shared] or NULL */
    bool by_head;                     /* what attention gives lies [n_kv * shared, n, value]; else [n, n_kv * shared,
                                       * value] */
    uint16_t *k, *v;
    int64_t n_pages;
};

/* Where value is dim: bias, head norm and rotation of q [n, n_kv * shared * dim] and k [n, n_kv * dim] in place; bias
 * of v likewise; k and v, as f16, into the cache. */
void gpu_rotate(const struct gpu *g, const struct gpu_batch *b, const struct gpu_heads *h, float *q, float *k, float *v,
                const struct gpu_clearing *clearing);

/* Of latent attention (model/model.h), whose one KV head has keys of value c's values and the rest turned: */
struct gpu_latent {
    int64_t dim;                      /* values of a query, of which the last h->dim - h->value are turned */
    const float *c_norm;              /* [value] */
    const float *query, *kept;        /* [n, shared, dim], [n, h->dim] c and the turned key */
    float *plain, *q;                 /* [shared, n, what is not turned of dim], [n, shared, h->dim] */
};
/* kept is normed and turned, and goes, as f16, into the cache: c as values, all of it as a key. Queries are turned and
 * tempered, and parted: the last values of each of q are what is turned. */
void gpu_turn_latent(const struct gpu *g, const struct gpu_batch *b, const struct gpu_heads *h,
                     const struct gpu_latent *l, const struct gpu_clearing *clearing);

/* Bytes of scratch that attention of up to n tokens over up to n_ctx positions takes; few: it may go token by token.
 * What is enough for some KV heads is for fewer. */
uint64_t gpu_attention_scratch(const struct gpu_heads *h, int64_t n, uint32_t n_ctx);
/* mixed->f32 = attention of q, as h has it lie; then quantised where asked (by_head: value is a multiple of 32).
 * scratch as above, for h or one with more KV heads, n or more, and n_ctx; it begins on a multiple of 256. */
void gpu_attend(const struct gpu *g, const struct gpu_batch *b, const struct gpu_heads *h, const float *q,
                void *scratch, uint32_t n_ctx, const struct acts *mixed, bool quantise);

/* A layer's keys and values of a page into another page. */
void gpu_copy_page(const struct gpu *g, const struct gpu_heads *h, uint32_t from, uint32_t to);

#ifdef __cplusplus
}
#endif

#endif
