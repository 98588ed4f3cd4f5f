/* The own KV heads of a layer, and the query heads that share them. */
#ifndef HEARTH_DEVICE_HEADS_H
#define HEARTH_DEVICE_HEADS_H

#include "device/lay.h"
#include "device/loading.h"

/* Weight matrices are packed, vectors are f32; NULL: the model has none. */
struct heads {
    int64_t begin, end;              /* of n_kv_heads; equal: none */
    struct packed q, k, v;           /* [own heads * head_dim, d] */
    struct packed gate;              /* [own query heads * head_dim, d] of gated attention */
    struct packed o;                 /* [d, own query heads * head_dim], in segments that end where head units do */
    /* Of latent attention; v is none, k makes c and the turned key, q reads q_low's where there is that. */
    struct packed q_low;             /* [q_rank, d] */
    struct packed q_in;              /* [own heads * rank, head_dim - n_rot] */
    struct packed c_out;             /* [own heads * value_dim, rank] */
    float *q_low_norm, *c_norm;      /* [q_rank], [rank] */
    float *q_bias, *k_bias, *v_bias;
    float *q_norm, *k_norm;          /* [head_dim], or of whole_norms [rows of q, k] */
    float *sinks;                    /* [own query heads] */
};

/* Of the matrices, all of which a token reads. */
static inline uint64_t heads_bytes(const struct heads *h)
{
    return packed_bytes(&h->q) + packed_bytes(&h->k) + packed_bytes(&h->v) + packed_bytes(&h->o) +
           packed_bytes(&h->gate) + packed_bytes(&h->q_low) + packed_bytes(&h->q_in) + packed_bytes(&h->c_out);
}

void heads_lay(const struct laying *to, int layer, struct heads *h);
void heads_load(struct loading *l, int layer, struct heads *to);

#endif
