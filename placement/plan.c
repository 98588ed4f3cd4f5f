/* Checking a plan against a model, and asking it. */
#include "placement/plan.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "placement/ranges.h"

void plan_free(struct plan *p)
{
    if (!p)
        return;
    free(p->layers);
    free(p->ranges);
    free(p);
}

status ranges_add(struct plan *p, size_t start, int64_t begin, int64_t end)
{
    if (begin == end)
        return ST_OK;
    if (p->n_ranges > start && p->ranges[p->n_ranges - 1].end == begin) {
        p->ranges[p->n_ranges - 1].end = (int32_t)end;
        return ST_OK;
    }
    if (p->n_ranges == p->ranges_cap) {
        size_t cap = p->ranges_cap ? 2 * p->ranges_cap : 64;
        struct neuron_range *larger = realloc(p->ranges, cap * sizeof *larger);
        if (!larger) {
            log_error("plan: no memory for %zu ranges of neurons", cap);
            return ST_NOMEM;
        }
        p->ranges = larger;
        p->ranges_cap = cap;
    }
    p->ranges[p->n_ranges++] = (struct neuron_range){(int32_t)begin, (int32_t)end};
    return ST_OK;
}

status ranges_cut(struct plan *p, const int64_t *bound, size_t first[PLAN_MAX_RANKS + 1])
{
    for (int r = 0; r < p->n_ranks; r++) {
        first[r] = p->n_ranges;
        status st = ranges_add(p, first[r], bound[r], bound[r + 1]);
        if (st != ST_OK)
            return st;
    }
    first[p->n_ranks] = p->n_ranges;
    return ST_OK;
}

static status mismatch(const char *what, int64_t planned, int64_t found)
{
    log_error("plan: made for %s %lld, found %lld", what, (long long)planned, (long long)found);
    return ST_MISMATCH;
}

static status check_heads(const struct plan *p, const struct plan_model *model)
{
    for (int l = 0; l < p->model.n_layers; l++) {
        const struct plan_layer *layer = &p->layers[l];
        if (!layer->heads_cut)
            continue;
        if (model->n_kv_heads && layer->heads[p->n_ranks] != model->n_kv_heads)
            return mismatch("a number of KV heads of", layer->heads[p->n_ranks], model->n_kv_heads);
        for (int r = 1; r < p->n_ranks; r++) {
            if (!model->head_unit || layer->heads[r] % model->head_unit == 0)
                continue;
            log_error("plan: layer %d is cut at KV head %d, expected a multiple of %lld", l, layer->heads[r],
                      (long long)model->head_unit);
            return ST_MISMATCH;
        }
    }
    return ST_OK;
}

/* Boundaries lie on units; sets may split them. */
static status check_units(const struct plan *p, int64_t unit)
{
    for (int l = 0; l < p->model.n_layers; l++) {
        const struct plan_layer *layer = &p->layers[l];
        for (size_t i = layer->first[0]; i < layer->first[p->n_ranks] && !layer->sets; i++) {
            int64_t begin = p->ranges[i].begin; /* of every rank's only range: the ends are begins, or d_ff */
            if (begin % unit == 0)
                continue;
            log_error("plan: layer %d is cut at neuron %lld, expected a multiple of %lld", l, (long long)begin,
                      (long long)unit);
            return ST_MISMATCH;
        }
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
    if (m->d_ff != model->d_ff)
        return mismatch("a number of neurons (d_ff) of", m->d_ff, model->d_ff);
    if (p->rows_cut && p->rows[n_ranks] != model->n_vocab)
        return mismatch("a vocabulary of", p->rows[n_ranks], model->n_vocab);
    if (m->file_bytes && model->file_bytes && m->file_bytes != model->file_bytes)
        return mismatch("a model file of bytes", (int64_t)m->file_bytes, (int64_t)model->file_bytes);
    if (m->file_hash && model->file_hash && m->file_hash != model->file_hash) {
        log_error("plan: made for the model file with hash %016llx, found %016llx", (unsigned long long)m->file_hash,
                  (unsigned long long)model->file_hash);
        return ST_MISMATCH;
    }
    status st = check_units(p, model->neuron_unit);
    return st != ST_OK ? st : check_heads(p, model);
}

int plan_neurons(const struct plan *p, int layer, int rank, const struct neuron_range **ranges)
{
    const size_t *first = &p->layers[layer].first[rank];
    *ranges = p->ranges + first[0];
    return (int)(first[1] - first[0]);
}

int64_t plan_n_neurons(const struct plan *p, int layer, int rank)
{
    const struct neuron_range *ranges;
    int64_t sum = 0;
    for (int i = plan_neurons(p, layer, rank, &ranges); i > 0; i--)
        sum += ranges[i - 1].end - ranges[i - 1].begin;
    return sum;
}

void plan_set_down(struct plan *p, bool at_stage)
{
    for (int l = 0; l < p->model.n_layers; l++)
        p->layers[l].down_at_stage = at_stage;
}

const char *plan_residual_obstacle(const struct plan *p)
{
    for (int l = 0; l < p->model.n_layers; l++) {
        if (p->layers[l].stage != p->layers[0].stage)
            return "a plan of several stages";
        if (p->layers[l].down_at_stage)
            return "down projections on their stage";
    }
    return NULL;
}

status plan_set_residual(struct plan *p, bool all)
{
    const char *obstacle = all ? plan_residual_obstacle(p) : NULL;
    if (obstacle) {
        log_error("plan: the residual stream cannot be on all ranks with %s", obstacle);
        return ST_USAGE;
    }
    p->residual_all = all;
    return ST_OK;
}

bool plan_down_at_stage(const struct plan *p, int layer)
{
    return p->layers[layer].down_at_stage;
}

void plan_heads(const struct plan *p, int layer, int rank, int64_t n_kv_heads, int64_t *begin, int64_t *end)
{
    const struct plan_layer *l = &p->layers[layer];
    *begin = l->heads_cut ? l->heads[rank] : 0;
    *end = l->heads_cut ? l->heads[rank + 1] : l->stage == rank ? n_kv_heads : 0;
}

bool plan_takes_part(const struct plan *p, int rank)
{
    if (p->rows_cut && p->rows[rank] < p->rows[rank + 1])
        return true;
    for (int l = 0; l < p->model.n_layers; l++) {
        const struct plan_layer *layer = &p->layers[l];
        if (layer->stage == rank || plan_n_neurons(p, l, rank) > 0 ||
            (layer->heads_cut && layer->heads[rank] < layer->heads[rank + 1]))
            return true;
    }
    return false;
}

void plan_stage(const struct plan *p, int rank, int *first, int *last)
{
    int l = 0;
    while (l < p->model.n_layers && p->layers[l].stage != rank)
        l++;
    *first = l;
    while (l < p->model.n_layers && p->layers[l].stage == rank)
        l++;
    *last = l;
}

int plan_next_stage(const struct plan *p, int rank)
{
    int first, last;
    plan_stage(p, rank, &first, &last);
    return last < p->model.n_layers ? p->layers[last].stage : -1;
}

void plan_rows(const struct plan *p, int rank, int64_t n_vocab, int64_t *begin, int64_t *end)
{
    bool all = !p->rows_cut && rank == plan_last_stage(p);
    *begin = p->rows_cut ? p->rows[rank] : 0;
    *end = p->rows_cut ? p->rows[rank + 1] : all ? n_vocab : 0;
}

int plan_first_stage(const struct plan *p)
{
    return p->layers[0].stage;
}

int plan_last_stage(const struct plan *p)
{
    return p->layers[p->model.n_layers - 1].stage;
}
