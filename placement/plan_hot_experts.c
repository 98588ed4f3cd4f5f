/* Dealing out the neurons of experts by how often they fire: whole units of them, so that no bit changes. */
#include "placement/plan.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "placement/ranges.h"

struct hot_unit {
    struct neuron_range range;
    double fires;              /* of its neurons, on average */
    int owner;
};

/* The layer's units in the order of its neurons; returns how many. */
static size_t list_units(const struct plan_shape *s, const float *fired, struct hot_unit *units)
{
    const int32_t all = (int32_t)plan_shape_neurons(s);
    size_t n = 0;
    for (int32_t begin = 0, end; begin < all; begin = end) {
        double sum = 0;
        end = plan_unit_end(s, begin);
        for (int32_t j = begin; j < end; j++)
            sum += fired[j];
        units[n++] = (struct hot_unit){{begin, end}, sum / (end - begin), -1};
    }
    return n;
}

static int hotter(const void *a, const void *b)
{
    const struct hot_unit *x = *(struct hot_unit *const *)a, *y = *(struct hot_unit *const *)b;
    if (x->fires != y->fires)
        return x->fires < y->fires ? 1 : -1;
    return x->range.begin - y->range.begin;
}

static int32_t size_of(const struct hot_unit *u) { return u->range.end - u->range.begin; }

/* The hottest units to the stage, up to about its part. */
static void take_hottest(struct hot_unit **by_heat, size_t n, int stage, int64_t part)
{
    int64_t left = part;
    for (size_t i = 0; i < n && left >= size_of(by_heat[i]) / 2 && left > 0; i++) {
        by_heat[i]->owner = stage;
        left -= size_of(by_heat[i]);
    }
}

/* Each of the others to the rank that is owed most: so each expert is spread over all of them. */
static void deal_rest(struct hot_unit *units, size_t n, int n_ranks, int stage, const int64_t *part)
{
    double owed[PLAN_MAX_RANKS] = {0}, all = 0;
    for (int r = 0; r < n_ranks; r++)
        all += r == stage ? 0 : (double)part[r];
    for (size_t i = 0; i < n; i++) {
        int most = -1;
        if (units[i].owner == stage)
            continue;
        for (int r = 0; r < n_ranks; r++) {
            owed[r] += r == stage || all <= 0 ? 0 : size_of(&units[i]) * (double)part[r] / all;
            if (r != stage && part[r] > 0 && (most < 0 || owed[r] > owed[most]))
                most = r;
        }
        units[i].owner = most < 0 ? stage : most; /* nobody else has any: the last units too */
        owed[units[i].owner] -= size_of(&units[i]);
    }
}

static status add_sets(struct plan *p, const struct hot_unit *units, size_t n, struct plan_layer *layer)
{
    layer->first_set = p->n_sets;
    memset(layer->held, 0, sizeof layer->held);
    for (int r = 0; r < p->n_ranks; r++) {
        const size_t start = p->n_ranges;
        status st = ST_OK;
        for (size_t i = 0; i < n && st == ST_OK; i++)
            st = units[i].owner == r ? ranges_add(p, start, units[i].range.begin, units[i].range.end) : ST_OK;
        st = st == ST_OK ? sets_add(p, r, start) : st;
        if (st != ST_OK)
            return st;
    }
    return sets_end(p, layer);
}

status hot_deal_experts(struct plan *p, struct plan_layer *layer, const float *fired, const int64_t *part)
{
    const struct plan_shape *s = &layer->shape;
    const size_t most = (size_t)(plan_shape_neurons(s) / s->neuron_unit) + (size_t)plan_n_bundles(s);
    struct hot_unit *units = malloc(most * sizeof *units), **by_heat = malloc(most * sizeof *by_heat);
    status st = ST_NOMEM;
    if (units && by_heat) {
        const size_t n = list_units(s, fired, units);
        for (size_t i = 0; i < n; i++)
            by_heat[i] = &units[i];
        qsort(by_heat, n, sizeof *by_heat, hotter);
        take_hottest(by_heat, n, layer->stage, part[layer->stage]);
        deal_rest(units, n, p->n_ranks, layer->stage, part);
        st = add_sets(p, units, n, layer);
    } else {
        log_error("plan: no memory to deal out %zu units of neurons", most);
    }
    free(by_heat);
    free(units);
    return st;
}
