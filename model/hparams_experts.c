/* The keys of experts. */
#include <inttypes.h>

#include "model/experts.h"
#include "model/family.h"
#include "model/hparams.h"

/* Their width defaults to what the dense width leaves for each that a token uses. */
static status read_width(const struct keys *k, struct hparams *hp)
{
    hp->d_expert = hp->family->experts->dense_width ? hp->d_ff : hp->d_ff / hp->n_experts_used;
    status s = hp->family->experts->dense_width ? ST_OK
               : optional_int(k, "expert_feed_forward_length", 1, MAX_D_FF, &hp->d_expert);
    if (s == ST_OK && (hp->d_expert < 1 || hp->d_expert > MAX_NEURONS / hp->n_experts))
        return bad_key(k, ST_FORMAT, "expert_feed_forward_length", "expected 1 to %" PRId64 " neurons of each of %"
                       PRId64 " experts, found %" PRId64, MAX_NEURONS / hp->n_experts, hp->n_experts, hp->d_expert);
    return s;
}

/* Neurons beside the experts. */
static status read_shared(const struct keys *k, struct hparams *hp)
{
    const struct expert_family *f = hp->family->experts;
    int64_t n = 0;
    hp->shared_routed = f->shared_routed;
    hp->d_shared = f->shared_routed ? hp->d_ff : 0;
    status s = f->shared_routed ? optional_int(k, "expert_shared_feed_forward_length", 1, MAX_D_FF, &hp->d_shared)
               : f->shared_count ? optional_int(k, "expert_shared_count", 0, MAX_EXPERTS, &n)
                                 : ST_OK;
    if (s == ST_OK && n > 0)
        hp->d_shared = n * hp->d_expert;
    return s;
}

static status read_score(const struct keys *k, struct router *r)
{
    static const enum router_score scores[] = {ROUTER_SOFTMAX, ROUTER_SIGMOID, ROUTER_CHOSEN};
    int64_t number = 0;
    status s = optional_int(k, "expert_gating_func", 0, INT32_MAX, &number);
    if (s != ST_OK || number == 0)
        return s;
    if (number > 3)
        return bad_key(k, ST_UNSUPPORTED, "expert_gating_func",
                       "expected 1 (softmax), 2 (sigmoid) or 3 (softmax over the chosen), found %" PRId64, number);
    r->score = scores[number - 1];
    return ST_OK;
}

static status read_weights(const struct keys *k, struct router *r)
{
    double scale = r->scale;
    status s = optional_bool(k, "expert_weights_norm", &r->normed);
    if (s == ST_OK)
        s = optional_float(k, "expert_weights_scale", 0, 1e6, &scale);
    if (s == ST_OK)
        r->scale = scale == 0 ? 1 : (float)scale;
    return s;
}

/* Two experts of a group score for it, and those that count must be enough. */
static status read_groups(const struct keys *k, struct hparams *hp)
{
    struct router *r = &hp->router;
    status s = optional_int(k, "expert_group_count", 0, MOST_EXPERT_GROUPS, &r->n_groups);
    r->n_groups = r->n_groups ? r->n_groups : 1;
    r->n_groups_used = r->n_groups;
    if (s == ST_OK)
        s = optional_int(k, "expert_group_used_count", 0, r->n_groups, &r->n_groups_used);
    if (s != ST_OK)
        return s;
    r->n_groups_used = r->n_groups_used ? r->n_groups_used : r->n_groups;
    const int64_t of_group = hp->n_experts / r->n_groups;
    if (hp->n_experts % r->n_groups || (r->n_groups > 1 && of_group < 2))
        return bad_key(k, ST_FORMAT, "expert_group_count", "expected groups of at least 2 of the %" PRId64
                       " experts, found %" PRId64, hp->n_experts, r->n_groups);
    if (r->n_groups_used * of_group < hp->n_experts_used)
        return bad_key(k, ST_FORMAT, "expert_group_used_count",
                       "expected groups with %" PRId64 " experts or more, found %" PRId64 " of %" PRId64,
                       hp->n_experts_used, r->n_groups_used, of_group);
    return ST_OK;
}

static status read_router(const struct keys *k, struct hparams *hp)
{
    const struct expert_family *f = hp->family->experts;
    hp->router = f->router;
    status s = f->reads_router || f->reads_score ? read_score(k, &hp->router) : ST_OK;
    if (s == ST_OK && f->reads_router)
        s = read_weights(k, &hp->router);
    return s == ST_OK ? read_groups(k, hp) : s;
}

/* The first layers may be dense; then these are as wide as feed_forward_length says. */
static status read_leading(const struct keys *k, struct hparams *hp)
{
    int64_t n = 0;
    status s = optional_int(k, "leading_dense_block_count", 0, hp->n_layers - 1, &n);
    hp->n_dense_layers = (int)n;
    hp->d_dense = n > 0 ? hp->d_ff : 0;
    return s;
}

status read_experts(const struct keys *k, struct hparams *hp)
{
    const struct expert_family *f = hp->family->experts;
    status s = f && !f->may_have_none ? required_int(k, "expert_count", 1, MAX_EXPERTS, &hp->n_experts)
                                      : optional_int(k, "expert_count", 0, MAX_EXPERTS, &hp->n_experts);
    if (s != ST_OK || hp->n_experts == 0)
        return s;
    if (!f)
        return bad_key(k, ST_UNSUPPORTED, "expert_count", "expected a model without experts (MoE), found %" PRId64,
                       hp->n_experts);
    if (hp->n_experts == 1) /* a layer of one bundle is one without experts */
        return bad_key(k, ST_UNSUPPORTED, "expert_count", "expected several experts, found 1");
    s = required_int(k, "expert_used_count", 1, hp->n_experts, &hp->n_experts_used);
    if (s == ST_OK)
        s = read_width(k, hp);
    if (s == ST_OK)
        s = read_shared(k, hp);
    if (s == ST_OK)
        s = read_leading(k, hp);
    if (s != ST_OK)
        return s;
    const int64_t neurons = hp->n_experts * hp->d_expert + hp->d_shared;
    if (neurons > MAX_NEURONS)
        return bad_key(k, ST_FORMAT, "expert_shared_count", "expected at most %d neurons of a layer, found %" PRId64,
                       MAX_NEURONS, neurons);
    hp->d_ff = neurons > hp->d_dense ? neurons : hp->d_dense;
    return read_router(k, hp);
}
