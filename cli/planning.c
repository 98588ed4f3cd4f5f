#include "cli/planning.h"

#include <stdio.h>
#include "base/log.h"
#include "cli/options.h"

void plan_model_of(const struct model *m, struct plan_model *out)
{
    *out = (struct plan_model){
        .n_layers = m->hp.n_layers,
        .d_ff = m->hp.d_ff,
        .n_vocab = m->hp.n_vocab,
        .neuron_unit = model_neuron_unit(m),
        .file_bytes = gguf_file_bytes(m->file),
        .file_hash = gguf_hash(m->file),
    };
    snprintf(out->architecture, sizeof out->architecture, "%s", m->hp.arch_name);
}

static status make_plan(const struct cluster_options *o, const struct plan_model *model, int n_ranks, struct plan **out)
{
    double shares[PLAN_MAX_RANKS];
    int n_shares = n_ranks;
    status st = o->shares ? options_shares(o->shares, shares, PLAN_MAX_RANKS, &n_shares) : ST_OK;
    if (st != ST_OK)
        return st;
    if (n_shares != n_ranks) {
        log_error("--shares %s names %d ranks, but there are %d", o->shares, n_shares, n_ranks);
        return ST_USAGE;
    }
    enum plan_split split = o->split >= 0 ? (enum plan_split)o->split : SPLIT_SHARDS;
    return plan_make(model, split, n_ranks, o->shares ? shares : NULL, out);
}

status plan_of_options(const struct cluster_options *o, const struct model *m, const struct neurons *neurons,
                       int n_ranks, struct plan **out)
{
    (void)neurons;
    struct plan_model model;
    struct plan *p;
    plan_model_of(m, &model);
    status st = o->plan ? plan_load(o->plan, &p) : make_plan(o, &model, n_ranks, &p);
    if (st != ST_OK)
        return st;
    st = plan_check(p, &model, n_ranks);
    if (st != ST_OK) {
        plan_free(p);
        return st;
    }
    *out = p;
    return ST_OK;
}

uint32_t plan_context(const struct cluster_options *o, const struct model *m)
{
    enum { MOST_BY_DEFAULT = 4096 };
    if (o->n_ctx)
        return o->n_ctx;
    return m->hp.n_ctx_train > 0 && m->hp.n_ctx_train < MOST_BY_DEFAULT ? (uint32_t)m->hp.n_ctx_train : MOST_BY_DEFAULT;
}
