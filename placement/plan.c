/* Asking a plan. */
#include "placement/plan.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"

void plan_free(struct plan *p)
{
    if (!p)
        return;
    free(p->layers);
    free(p->sets);
    free(p->ranges);
    free(p);
}

int plan_n_holders(const struct plan *p)
{
    return p->n_holders;
}

int plan_holder_rank(const struct plan *p, int holder)
{
    return p->holders[holder].rank;
}

const char *plan_holder_device(const struct plan *p, int holder)
{
    return p->holders[holder].device;
}

int plan_home(const struct plan *p, int rank)
{
    return p->homes[rank] ? p->homes[rank] : rank;
}

bool plan_holder_is_cpu(const struct plan *p, int holder)
{
    return strncmp(p->holders[holder].device, "cpu", 3) == 0;
}

/* The holder's i-th set of a layer; NULL: it has no more than *n. */
static const struct plan_set *find_set(const struct plan *p, int layer, int holder, int i, int *n)
{
    const struct plan_layer *l = &p->layers[layer];
    const struct plan_set *set = p->sets + l->first_set;
    *n = 0;
    for (size_t left = l->n_sets; left > 0; left--, set++)
        if (set->holder == holder && (*n)++ == i)
            return set;
    return NULL;
}

int plan_n_sets(const struct plan *p, int layer, int holder)
{
    int n;
    find_set(p, layer, holder, -1, &n);
    return n;
}

int plan_set(const struct plan *p, int layer, int holder, int i, const struct neuron_range **ranges)
{
    int n;
    const struct plan_set *set = find_set(p, layer, holder, i, &n);
    *ranges = set ? p->ranges + set->ranges.first : NULL;
    return set ? set->ranges.n : 0;
}

int plan_neurons(const struct plan *p, int layer, int holder, const struct neuron_range **ranges)
{
    const struct range_span held = p->layers[layer].held[holder];
    *ranges = p->ranges + held.first;
    return held.n;
}

int64_t plan_n_neurons(const struct plan *p, int layer, int holder)
{
    const struct neuron_range *ranges;
    int64_t sum = 0;
    for (int i = plan_neurons(p, layer, holder, &ranges); i > 0; i--)
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

void plan_heads(const struct plan *p, int layer, int holder, int64_t n_kv_heads, int64_t *begin, int64_t *end)
{
    const struct plan_layer *l = &p->layers[layer];
    *begin = l->heads_cut ? l->heads[holder] : 0;
    *end = l->heads_cut ? l->heads[holder + 1] : plan_home(p, l->stage) == holder ? n_kv_heads : 0;
}

static bool holds(const struct plan *p, enum plan_part part, int layer, int holder)
{
    const struct plan_layer *l = part == PLAN_ROWS ? NULL : &p->layers[layer];
    switch (part) {
    case PLAN_HEADS: return l->heads_cut ? l->heads[holder] < l->heads[holder + 1] : plan_home(p, l->stage) == holder;
    case PLAN_NEURONS: return l->held[holder].n > 0;
    default: return p->rows_cut ? p->rows[holder] < p->rows[holder + 1] : plan_home(p, plan_last_stage(p)) == holder;
    }
}

bool plan_rank_holds(const struct plan *p, enum plan_part part, int layer, int rank)
{
    for (int h = 0; h < p->n_holders; h++)
        if (p->holders[h].rank == rank && holds(p, part, layer, h))
            return true;
    return false;
}

int plan_holder_layers(const struct plan *p, int holder)
{
    int n = 0;
    for (int l = 0; l < p->model.n_layers; l++)
        n += holds(p, PLAN_HEADS, l, holder) || holds(p, PLAN_NEURONS, l, holder);
    return n;
}

bool plan_takes_part(const struct plan *p, int rank)
{
    if (plan_rank_holds(p, PLAN_ROWS, 0, rank))
        return true;
    for (int l = 0; l < p->model.n_layers; l++)
        if (p->layers[l].stage == rank || plan_rank_holds(p, PLAN_NEURONS, l, rank) ||
            plan_rank_holds(p, PLAN_HEADS, l, rank))
            return true;
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

void plan_rows(const struct plan *p, int holder, int64_t n_vocab, int64_t *begin, int64_t *end)
{
    bool all = !p->rows_cut && holder == plan_home(p, plan_last_stage(p));
    *begin = p->rows_cut ? p->rows[holder] : 0;
    *end = p->rows_cut ? p->rows[holder + 1] : all ? n_vocab : 0;
}

int plan_first_stage(const struct plan *p)
{
    return p->layers[0].stage;
}

int plan_last_stage(const struct plan *p)
{
    return p->layers[p->model.n_layers - 1].stage;
}
