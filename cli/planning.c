#include "cli/planning.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/log.h"
#include "cli/options.h"

void plan_model_of(const struct model *m, struct plan_model *out)
{
    *out = (struct plan_model){
        .n_layers = m->hp.n_layers,
        .d_ff = m->hp.d_ff,
        .n_vocab = m->hp.n_vocab,
        .neuron_unit = model_neuron_unit(m),
        .n_kv_heads = m->hp.n_kv_heads,
        .head_unit = model_head_unit(m),
        .file_bytes = gguf_file_bytes(m->file),
        .file_hash = gguf_hash(m->file),
    };
    snprintf(out->architecture, sizeof out->architecture, "%s", m->hp.arch_name);
}

/* The neuron file that options name, or the one beside the model where there is one. */
static status load_neurons(const struct cluster_options *o, const struct model *m, struct neurons **out)
{
    const char *named = o->neurons;
    if (named && !*named)
        return ST_OK;
    char *path = named ? strdup(named) : neurons_path(o->model);
    if (!path) {
        log_error("out of memory for the neuron file's name");
        return ST_NOMEM;
    }
    status st = named || access(path, F_OK) == 0 ? neurons_load(path, m, out) : ST_OK;
    free(path);
    return st;
}

status model_of_options(const struct cluster_options *o, struct model **model, struct neurons **neurons,
                        enum predictor *predictor)
{
    struct model *m = NULL;
    struct neurons *n = NULL;
    enum predictor p = o->predictor;
    status st = model_load(o->model, &m);
    if (!st)
        st = load_neurons(o, m, &n);
    if (!st)
        st = activation_settle(m, n, o->activation, &m->hp.activation);
    if (!st)
        st = sparse_mode_check(m, n, o->sparse, &p);
    if (st) {
        neurons_free(n);
        model_free(m);
        return st;
    }
    *model = m;
    *neurons = n;
    *predictor = p;
    return ST_OK;
}

static status make_hot_plan(const struct plan_model *model, const struct neurons *n, int n_ranks, const double *shares,
                            struct plan **out)
{
    if (!n) {
        log_error("--split hot needs to know how often neurons fire: make a neuron file with `hearth prepare`, or name "
                  "it with --neurons");
        return ST_USAGE;
    }
    const float **fired = malloc((size_t)n->n_layers * sizeof *fired);
    if (!fired) {
        log_error("no memory for %d layers", n->n_layers);
        return ST_NOMEM;
    }
    for (int l = 0; l < n->n_layers; l++)
        fired[l] = n->layers[l].fired;
    status st = plan_make_hot(model, n_ranks, shares, fired, out);
    free(fired);
    return st;
}

/* Where options put down projections and the residual stream, in a plan just made, which is freed unless ST_OK. */
static status place_residual(const struct cluster_options *o, struct plan *p)
{
    plan_set_down(p, o->down_at_stage);
    const bool all = o->residual >= 0 ? o->residual : p->n_ranks > 1 && !plan_residual_obstacle(p);
    status st = plan_set_residual(p, all);
    if (st != ST_OK)
        plan_free(p);
    return st;
}

static status make_plan(const struct cluster_options *o, const struct plan_model *model, const struct neurons *neurons,
                        int n_ranks, struct plan **out)
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
    const double *given = o->shares ? shares : NULL;
    st = split == SPLIT_HOT ? make_hot_plan(model, neurons, n_ranks, given, out)
                            : plan_make(model, split, n_ranks, given, out);
    return st == ST_OK ? place_residual(o, *out) : st;
}

status plan_of_options(const struct cluster_options *o, const struct model *m, const struct neurons *neurons,
                       int n_ranks, struct plan **out)
{
    struct plan_model model;
    struct plan *p;
    plan_model_of(m, &model);
    status st = o->plan ? plan_load(o->plan, &p) : make_plan(o, &model, neurons, n_ranks, &p);
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
