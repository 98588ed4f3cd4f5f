/* Whether a plan fits a model. */
#include "placement/plan.h"

#include <string.h>

#include "base/log.h"

static status mismatch(const char *what, int64_t planned, int64_t found)
{
    log_error("plan: made for %s %lld, found %lld", what, (long long)planned, (long long)found);
    return ST_MISMATCH;
}

static status layer_mismatch(int layer, const char *what, int64_t planned, int64_t found)
{
    log_error("plan: layer %d is made for %s %lld, found %lld", layer, what, (long long)planned, (long long)found);
    return ST_MISMATCH;
}

/* Units are not compared: a plan may be cut at multiples of the model's. */
static status check_shape(const struct plan_shape *planned, const struct plan_shape *found, int layer)
{
    if (planned->d_ff != found->d_ff)
        return layer_mismatch(layer, "a number of neurons (d_ff) of", planned->d_ff, found->d_ff);
    if (planned->n_kv_heads && found->n_kv_heads && planned->n_kv_heads != found->n_kv_heads)
        return layer_mismatch(layer, "a number of KV heads of", planned->n_kv_heads, found->n_kv_heads);
    if (planned->n_experts != found->n_experts)
        return layer_mismatch(layer, "a number of experts of", planned->n_experts, found->n_experts);
    if (planned->n_experts_used != found->n_experts_used)
        return layer_mismatch(layer, "a number of experts for a token of", planned->n_experts_used,
                              found->n_experts_used);
    if (planned->d_shared != found->d_shared)
        return layer_mismatch(layer, "a number of shared neurons (d_shared) of", planned->d_shared, found->d_shared);
    return ST_OK;
}

static status check_heads(const struct plan *p, int layer, int64_t unit)
{
    const int32_t *heads = p->layers[layer].heads;
    for (int h = 1; h < p->n_holders && p->layers[layer].heads_cut && unit; h++) {
        if (heads[h] % unit == 0)
            continue;
        log_error("plan: layer %d is cut at KV head %d, expected a multiple of %lld", layer, heads[h], (long long)unit);
        return ST_MISMATCH;
    }
    return ST_OK;
}

/* That all ranges begin on units is enough: each ends where another begins, or at the last neuron. */
static status check_units(const struct plan *p, int layer, int64_t unit)
{
    const struct plan_layer *l = &p->layers[layer];
    for (int h = 0; h < p->n_holders && !l->splits_units && unit; h++) {
        const struct neuron_range *ranges;
        for (int i = 0, n = plan_neurons(p, layer, h, &ranges); i < n; i++) {
            if (plan_on_unit(&l->shape, ranges[i].begin, unit))
                continue;
            log_error("plan: layer %d is cut at neuron %d, expected a multiple of %lld%s", layer, ranges[i].begin,
                      (long long)unit, l->shape.n_experts ? " of an expert's neurons" : "");
            return ST_MISMATCH;
        }
    }
    return ST_OK;
}

static status check_file(const struct plan_model *planned, const struct plan_model *found)
{
    if (planned->file_bytes && found->file_bytes && planned->file_bytes != found->file_bytes)
        return mismatch("a model file of bytes", (int64_t)planned->file_bytes, (int64_t)found->file_bytes);
    if (planned->file_hash && found->file_hash && planned->file_hash != found->file_hash) {
        log_error("plan: made for the model file with hash %016llx, found %016llx",
                  (unsigned long long)planned->file_hash, (unsigned long long)found->file_hash);
        return ST_MISMATCH;
    }
    return ST_OK;
}

status plan_check(const struct plan *p, const struct plan_model *model, int n_ranks)
{
    const struct plan_model *m = &p->model;
    if (p->n_ranks != n_ranks)
        return mismatch("a number of ranks of", p->n_ranks, n_ranks);
    if (strcmp(m->architecture, model->architecture) != 0) {
        log_error("plan: made for architecture '%s', found '%s'", m->architecture, model->architecture);
        return ST_MISMATCH;
    }
    if (m->n_layers != model->n_layers)
        return mismatch("a number of layers of", m->n_layers, model->n_layers);
    if (p->rows_cut && p->rows[p->n_holders] != model->n_vocab)
        return mismatch("a vocabulary of", p->rows[p->n_holders], model->n_vocab);
    status st = check_file(m, model);
    for (int l = 0; l < m->n_layers && st == ST_OK; l++) {
        const struct plan_shape shape = plan_model_shape(model, l);
        st = check_shape(&p->layers[l].shape, &shape, l);
        if (st == ST_OK)
            st = check_units(p, l, model->layer.neuron_unit);
        if (st == ST_OK)
            st = check_heads(p, l, shape.head_unit);
    }
    return st;
}
