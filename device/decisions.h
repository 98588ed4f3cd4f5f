/* What every device decides alike, so that all give the same bits: which neurons a layer computes, where sums of heads
 * are cut. */
#ifndef HEARTH_DEVICE_DECISIONS_H
#define HEARTH_DEVICE_DECISIONS_H

#include "device/device.h"
#include "model/model.h"

/* How a layer decides which of its neurons are computed. */
enum decision {
    DECIDE_NOT,       /* all of them: dense */
    DECIDE_GATE,      /* the gate of all, up and down of those that fire */
    DECIDE_ESTIMATE,  /* the gate of those whose estimate exceeds their bound */
    DECIDE_MLP,       /* the gate of those that an MLP flags */
    DECIDE_PRODUCT    /* gate and up of those whose estimated activation is large */
};

/* Above this share of firing neurons a layer is computed whole: single rows and columns gain nothing. */
#define DENSE_FROM 0.7f

enum decision decide(const struct device_options *o, int layer);
/* The threshold at which the wanted share of neurons is skipped (DECIDE_PRODUCT). */
float skip_threshold(const struct device_options *o, int layer);
/* The least logit that flags a neuron (DECIDE_MLP). */
float mlp_threshold(const struct device_options *o, int layer);

/* Query heads that share a KV head. */
static inline int64_t queries(const struct hparams *hp) { return hp->n_heads / hp->n_kv_heads; }
/* Values that are kept of a token for each of so many heads: of its key, which queries are compared with, and of its
 * value, of which they mix; and for how many, of n own KV heads. */
static inline int64_t kept_key(const struct hparams *hp)
{
    return hp->latent.rank ? hp->latent.rank + hp->n_rot : hp->head_dim;
}
static inline int64_t kept_value(const struct hparams *hp) { return hp->latent.rank ? hp->latent.rank : hp->head_dim; }
static inline int64_t kept_heads(const struct hparams *hp, int64_t n) { return hp->latent.rank && n ? 1 : n; }

/* Columns of a segment of the output projection of a layer's heads: it ends wherever the plan may cut these. */
int64_t head_segment(const struct model *m, int layer);

/* ST_USAGE (logged): the context is longer than the positions that the model has learned. */
status context_check(const struct device_options *o);

#endif
