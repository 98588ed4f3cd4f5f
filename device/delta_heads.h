/* The own key heads of a gated delta net, each with its value heads (model/model.h). */
#ifndef HEARTH_DEVICE_DELTA_HEADS_H
#define HEARTH_DEVICE_DELTA_HEADS_H

#include "device/lay.h"
#include "device/loading.h"

/* Own heads are counted among the own ones: key head h is the model's begin + h; value heads are in the order in which
 * the file has them. */
struct delta_heads {
    int64_t begin, end;        /* of the net's key heads; equal: none */
    struct packed qkv;         /* [channels, d] queries of own key heads, then keys, then values of own value heads */
    struct packed z;           /* [own value heads * size, d] */
    struct packed beta, alpha; /* [own value heads, d] */
    struct packed o;           /* [d, own value heads * size], in segments that end where head units do */
    float *taps;               /* [taps, channels] */
    float *dt_bias, *decay;    /* [own value heads] */
    float *head_norm;          /* [size] */
};

/* Value heads of a key head. */
static inline int64_t delta_ratio(const struct hparams *hp) { return hp->delta.value_heads / hp->delta.key_heads; }
static inline int64_t delta_values(const struct hparams *hp, const struct delta_heads *h)
{
    return (h->end - h->begin) * delta_ratio(hp);
}
static inline int64_t delta_channels(const struct hparams *hp, const struct delta_heads *h)
{
    return (2 * (h->end - h->begin) + delta_values(hp, h)) * hp->delta.size;
}
/* The i-th value head of own key head h, among the own ones. */
static inline int64_t delta_value(const struct hparams *hp, const struct delta_heads *of, int64_t h, int64_t i)
{
    return hp->delta.in_turn ? i * (of->end - of->begin) + h : h * delta_ratio(hp) + i;
}

/* Layers that are no such net have no heads. */
void delta_heads_lay(const struct laying *to, int layer, struct delta_heads *h);
void delta_heads_load(struct loading *l, int layer, struct delta_heads *to);

#endif
