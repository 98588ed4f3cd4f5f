#include "node/planning.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>
#include "base/log.h"
#include "device/device.h"
#include "node/heat.h"

void plan_model_of(const struct model *m, struct plan_model *out)
{
    *out = (struct plan_model){
        .n_layers = m->hp.n_layers,
        .layer = {.d_ff = m->hp.n_experts ? m->hp.d_expert : m->hp.d_ff, .neuron_unit = model_neuron_unit(m),
                  .n_kv_heads = m->hp.n_kv_heads, .n_experts = m->hp.n_experts,
                  .n_experts_used = m->hp.n_experts_used, .d_shared = m->hp.d_shared},
        .n_dense_layers = m->hp.n_experts ? m->hp.n_dense_layers : 0,
        .d_dense = m->hp.d_dense,
        .n_vocab = m->hp.n_vocab,
        .file_bytes = gguf_file_bytes(m->file),
        .file_hash = gguf_hash(m->file),
    };
    for (int l = 0; l < m->hp.n_layers && l < PLAN_MAX_LAYERS; l++) {
        out->is_net[l] = m->hp.layer[l].kind == LAYER_DELTA;
        *(out->is_net[l] ? &out->key_head_unit : &out->layer.head_unit) = model_head_unit(m, l);
    }
    out->key_heads = m->hp.delta.key_heads;
    snprintf(out->architecture, sizeof out->architecture, "%s", m->hp.arch_name);
}

/* The neuron file that options name, or the one beside the model where there is one. If that one is another model's it
 * is as good as none, and `stale` says so. */
static status load_neurons(const struct cluster_options *o, const struct model *m, struct neurons **out,
                           struct log_catcher *stale)
{
    const char *named = o->neurons;
    if (named && !*named)
        return ST_OK;
    char *path = named ? strdup(named) : neurons_path(o->model);
    if (!path) {
        log_error("out of memory for the neuron file's name");
        return ST_NOMEM;
    }
    status st = ST_OK;
    if (named) {
        st = neurons_load(path, m, out);
    } else if (access(path, F_OK) == 0) {
        log_catch(stale);
        st = neurons_load(path, m, out);
        log_catch(NULL);
        if (st && st != ST_MISMATCH)
            log_error("%s", stale->first_error);
        st = st == ST_MISMATCH ? ST_OK : st;
    }
    free(path);
    return st;
}

/* The activation, the mode and its predictor. What a stale neuron file may have had for them is not used: if they can
 * be settled without, rank 0 warns, and otherwise that file is what is wrong. */
static status settle(const struct cluster_options *o, int rank, struct model *m, const struct neurons *n,
                     const char *stale, enum predictor *p)
{
    struct log_catcher why;
    log_catch(&why);
    status st = activation_settle(m, n, o->activation, &m->hp.activation);
    if (!st)
        st = sparse_mode_check(m, n, o->sparse, p);
    log_catch(NULL);
    if (!st && *stale && o->split == SPLIT_HOT) /* that asks how often neurons fire */
        st = ST_MISMATCH;
    if (st)
        log_error("%s", *stale ? stale : why.first_error);
    else if (*stale && rank == 0)
        log_warn("%s; it is not used, as this run needs none: the activation is %s", stale,
                 activation_name(m->hp.activation));
    return st && *stale ? ST_MISMATCH : st;
}

status model_of_options(const struct cluster_options *o, int rank, struct model **model, struct neurons **neurons,
                        enum predictor *predictor)
{
    struct log_catcher stale = {0};
    struct model *m = NULL;
    struct neurons *n = NULL;
    enum predictor p = o->predictor;
    status st = model_load(o->model, &m);
    if (!st)
        st = load_neurons(o, m, &n, &stale);
    if (!st)
        st = settle(o, rank, m, n, stale.first_error, &p);
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

status plan_shares(const char *text, double *shares, int max, int *n)
{
    int found = 0;
    for (const char *at = text;; found++) {
        char *end;
        double v = strtod(at, &end);
        if (end == at || !(v > 0 && v < 1e9) || (*end && *end != ',')) {
            log_error("--shares takes positive numbers such as 3,1, not '%s'", text);
            return ST_USAGE;
        }
        if (found == max) {
            log_error("--shares has more than %d numbers", max);
            return ST_USAGE;
        }
        shares[found] = v;
        if (!*end)
            break;
        at = end + 1;
    }
    *n = found + 1;
    return ST_OK;
}

bool plan_may_use_gpus(const struct cluster_options *o)
{
    return (o->device == DEVICES_AUTO || o->device == DEVICES_CUDA) && o->gpu_layers != 0 && !o->observe;
}

void plan_gpus_warn(const struct cluster_options *o)
{
    if (o->device == DEVICES_CUDA && o->gpu_layers == 0)
        log_warn("everything runs on the CPU: -ngl 0 gives nothing to the GPUs that --device cuda asks for");
}

/* dense: all neurons are computed. */
static status make_hot_plan(const struct plan_model *model, const struct neurons *n, bool dense, int n_ranks,
                            const double *shares, struct plan **out)
{
    struct heat heat;
    if (!n) {
        log_error("--split hot needs to know how often neurons fire: make a neuron file with `hearth prepare`, or name "
                  "it with --neurons");
        return ST_USAGE;
    }
    status st = heat_of(n, dense, &heat);
    if (st == ST_OK)
        st = plan_make_hot(model, n_ranks, shares, heat.of, out);
    heat_free(&heat);
    return st;
}

/* Where options put down projections and the residual stream, in a plan just made. `all`: where the residual stream is
 * if they do not say and it can be. */
static status place_residual(const struct cluster_options *o, struct plan *p, bool all)
{
    plan_set_down(p, o->down_at_stage);
    all = o->residual >= 0 ? o->residual : all && !plan_residual_obstacle(p);
    return plan_set_residual(p, all);
}

/* What a plan is made from; shares NULL: equal ones. */
struct recipe {
    enum plan_split split;
    const double *shares; /* [n_ranks] */
};

/* The candidate to take where the user has said how to split: the cheapest such one. */
static int pick(const struct choice *c, int split)
{
    const int wanted = split == SPLIT_HOT ? SPLIT_BOTH : split;
    int best = -1;
    if (split < 0)
        return c->best;
    for (int i = 0; i < c->n; i++)
        if ((int)c->candidates[i].split == wanted &&
            (best < 0 || cost_ms(&c->candidates[i].cost) < cost_ms(&c->candidates[best].cost)))
            best = i;
    return best < 0 ? c->best : best;
}

static status make_plan(const struct cluster_options *o, const struct plan_model *model, const struct neurons *neurons,
                        int n_ranks, const struct choice *choice, struct plan **out)
{
    double shares[PLAN_MAX_RANKS];
    struct recipe r = {.split = o->split >= 0 ? (enum plan_split)o->split : SPLIT_SHARDS};
    if (o->shares) {
        int n;
        status st = plan_shares(o->shares, shares, PLAN_MAX_RANKS, &n);
        if (st != ST_OK)
            return st;
        r.shares = shares;
    }
    const struct candidate *c = choice->n > 0 ? &choice->candidates[pick(choice, o->split)] : NULL;
    r.shares = c ? c->shares : r.shares;
    status st = r.split == SPLIT_HOT ? make_hot_plan(model, neurons, o->sparse == SPARSE_DENSE, n_ranks, r.shares, out)
                : c                  ? candidate_plan(c, model, n_ranks, out)
                                     : plan_make(model, r.split, n_ranks, r.shares, out);
    return st == ST_OK ? place_residual(o, *out, c ? c->residual_all : n_ranks > 1) : st;
}

/* Compares what could be done; leaves r->choice.n at 0 without a probe. */
static status consult_probe(const struct cluster_options *o, const struct plan_model *model, int n_ranks,
                            struct plan_reasons *r)
{
    double shares[PLAN_MAX_RANKS];
    int n = n_ranks;
    status st = o->shares ? plan_shares(o->shares, shares, PLAN_MAX_RANKS, &n) : ST_OK;
    if (st == ST_OK && n != n_ranks) {
        log_error("--shares %s names %d ranks, but there are %d", o->shares, n, n_ranks);
        st = ST_USAGE;
    }
    if (st != ST_OK || !o->probe)
        return st;
    st = probe_load(o->probe, &r->probe);
    if (st == ST_OK)
        st = probe_check(r->probe, o->probe, n_ranks);
    return st == ST_OK ? cost_choose(r->probe, &r->model, model, o->shares ? shares : NULL, &r->choice) : st;
}

/* Tokens of the KV cache that there is room for: what kv_sequences could fill, or what the budgets of all ranks hold
 * where these have equal parts of it, of all that the texts could fill; of one text, at least. */
static double kv_held(const struct cluster_options *o, const struct model *m, int n_ranks, double n_ctx)
{
    const uint32_t n = o->n_sequences ? o->n_sequences : 1;
    const uint32_t full = o->kv_sequences && o->kv_sequences < n ? o->kv_sequences : n;
    const double budget = (double)o->kv_budget * n_ranks / cost_kv_bytes(m);
    return o->kv_budget ? fmax(fmin(n_ctx * n, budget), n_ctx) : n_ctx * full;
}

/* What is to be run. Neurons differ where only those that fire are computed, experts there or where a plan is asked for
 * that knows which are chosen; keys and values are read up to where a text is, on average half of the context. */
static status describe_run(const struct cluster_options *o, const struct model *m, const struct neurons *n,
                           int n_ranks, struct plan_reasons *r)
{
    const uint32_t n_ctx = plan_context(o, m);
    const bool by_neurons = n && o->sparse != SPARSE_DENSE;
    r->model = (struct cost_model){
        .model = m,
        .kv_read = n_ctx / 2.0,
        .kv_held = kv_held(o, m, n_ranks, n_ctx),
        .states = device_states(m, o->n_sequences ? o->n_sequences : 1),
        .ram_budget = o->ram_budget,
        .gpus = plan_may_use_gpus(o),
        .vram_budget = o->vram_budget,
        .transport = o->network.kind == NETWORK_AUTO ? NULL : network_kind_name(o->network.kind),
        .residual = o->residual,
    };
    const bool by_experts = n && n->experts.n && (by_neurons || o->split == SPLIT_HOT);
    if (!o->probe && !r->model.gpus)
        return ST_OK;
    if (by_experts && !(r->model.chosen = r->chosen = heat_chosen(n)))
        return ST_NOMEM;
    if (by_neurons && !(r->model.fires = r->fires = heat_fires(n)))
        return ST_NOMEM;
    return ST_OK;
}

/* Why a split file would say nothing for such a run, and what to leave out; NULL: it does. */
static const char *index_obstacle(const struct cluster_options *o, const struct plan *p)
{
    if (o->sparse == SPARSE_DENSE)
        return "--sparse dense computes all neurons alike: take another mode, or -ngl";
    if (plan_down_at_stage(p, 0))
        return "--down stage parts them from their down projections: leave it out";
    return p->layers[0].splits_units ? "--split hot takes whole units apart: take another" : NULL;
}

/* What GPUs get, if a split file says it. */
static status load_index(const struct cluster_options *o, const struct model *m, const struct plan *p,
                         struct plan_reasons *r)
{
    const char *why_not = o->gpu_index ? index_obstacle(o, p) : NULL;
    if (!o->gpu_index)
        return ST_OK;
    if (why_not) {
        log_error("--gpu-index says which neurons GPUs get, and %s", why_not);
        return ST_USAGE;
    }
    status st = gpuidx_load(o->gpu_index, m, &r->index);
    if (st)
        return st;
    r->marks = malloc((size_t)r->index->n_layers * sizeof *r->marks);
    if (!r->marks) {
        log_error("no memory for %d layers", r->index->n_layers);
        return ST_NOMEM;
    }
    for (int l = 0; l < r->index->n_layers; l++) {
        r->marks[l] = r->index->layers[l].on_gpu;
        r->marks_hash = XXH3_64bits_withSeed(r->marks[l], (size_t)r->index->d_ff * sizeof *r->marks[l], r->marks_hash);
    }
    r->marks_hash |= 1; /* 0 would be none */
    return ST_OK;
}

void plan_reasons_free(struct plan_reasons *r)
{
    probe_free(r->probe);
    free(r->fires);
    free(r->chosen);
    gpuidx_free(r->index);
    free(r->marks);
    r->probe = NULL;
    r->fires = NULL;
    r->chosen = NULL;
    r->model.fires = NULL;
    r->model.chosen = NULL;
    r->index = NULL;
    r->marks = NULL;
}

/* Whether a plan that is a file agrees with what ranks are to compute with. */
static status check_device(const struct cluster_options *o, const struct plan *p)
{
    int gpu = 0;
    while (gpu < plan_n_holders(p) && plan_holder_is_cpu(p, gpu))
        gpu++;
    const bool named = gpu < plan_n_holders(p);
    if (named && o->device == DEVICES_CPU)
        log_error("--device cpu: the plan's holders[%d] is %s of rank %d: leave out --device, or take a plan without "
                  "GPUs", gpu, plan_holder_device(p, gpu), plan_holder_rank(p, gpu));
    else if (!named && o->device == DEVICES_CUDA)
        log_error("--device cuda: the plan gives no GPU anything: leave out --device, or take a plan that names GPUs");
    else
        return ST_OK;
    return ST_USAGE;
}

status plan_of_options(const struct cluster_options *o, const struct model *m, const struct neurons *neurons,
                       int n_ranks, struct plan **out, struct plan_reasons *reasons)
{
    struct plan_model model;
    struct plan *p = NULL;
    plan_model_of(m, &model);
    *reasons = (struct plan_reasons){0};
    status st = describe_run(o, m, neurons, n_ranks, reasons);
    if (st == ST_OK)
        st = consult_probe(o, &model, n_ranks, reasons);
    if (st == ST_OK)
        st = o->plan ? plan_load(o->plan, &p) : make_plan(o, &model, neurons, n_ranks, &reasons->choice, &p);
    if (st == ST_OK)
        st = plan_check(p, &model, n_ranks);
    if (st == ST_OK && o->plan)
        st = check_device(o, p);
    if (st == ST_OK)
        st = load_index(o, m, p, reasons);
    if (st != ST_OK) {
        plan_reasons_free(reasons);
        plan_free(p);
        return st;
    }
    plan_reasons_settle(reasons, p);
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

void plan_context_warn(const struct model *m, uint32_t n_ctx)
{
    if (n_ctx > m->hp.n_ctx_train)
        log_warn("the context has %u tokens (-c), the model was trained for %lld: what comes beyond may make no sense",
                 n_ctx, (long long)m->hp.n_ctx_train);
}
