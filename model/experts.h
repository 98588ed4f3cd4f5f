/* Layers with experts, for model/ alone. */
#ifndef HEARTH_MODEL_EXPERTS_H
#define HEARTH_MODEL_EXPERTS_H

#include "model/keys.h"
#include "model/weights.h"

/* What families with experts differ in. */
struct expert_family {
    struct router router;        /* as far as keys do not say otherwise */
    bool reads_router;           /* the keys of its scores, norm and scale count: others' files may have them in vain */
    bool reads_score;            /* that of its scores alone counts */
    bool may_have_none;          /* dense models are of the family too */
    bool dense_width;            /* experts are as wide as feed_forward_length says */
    bool shared_count;           /* expert_shared_count says how many experts' width is shared */
    bool shared_routed;          /* what is shared has a width and a router of its own */
    bool biases;                 /* of the router, and of gates, ups and downs */
    enum presence choice_bias;
};

/* Reads the keys of experts; hp.d_ff is feed_forward_length, and becomes the neurons of a layer. ST_FORMAT,
 * ST_UNSUPPORTED (logged). */
status read_experts(const struct keys *k, struct hparams *hp);

/* How many bundles a layer has. */
int bundles_count(const struct hparams *hp, int layer);
/* Finds a layer's router and experts and fills in its bundles. Errors of find_table. */
status find_experts(struct finder *f, const struct hparams *hp, int layer, struct layer_weights *w);

#endif
