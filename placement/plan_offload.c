/* Giving a rank's layers to a device beside its CPU. */
#include "placement/plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "placement/ranges.h"

static bool has_layer(const struct plan *p, int layer, int rank)
{
    return p->layers[layer].stage == rank || plan_rank_holds(p, PLAN_HEADS, layer, rank) ||
           plan_rank_holds(p, PLAN_NEURONS, layer, rank);
}

int plan_count_layers(const struct plan *p, int rank)
{
    int n = 0;
    for (int l = 0; l < p->model.n_layers; l++)
        n += has_layer(p, l, rank);
    return n;
}

/* What is not cut goes where the home is: it is cut so that it lies where it lay. (A model always states how much there
 * is.) */
static void cut_all(struct plan *p)
{
    for (int l = 0; l < p->model.n_layers; l++) {
        struct plan_layer *layer = &p->layers[l];
        if (layer->heads_cut || !layer->shape.n_kv_heads)
            continue;
        for (int h = 0; h <= p->n_holders; h++)
            layer->heads[h] = h > plan_home(p, layer->stage) ? (int32_t)layer->shape.n_kv_heads : 0;
        layer->heads_cut = true;
    }
    if (p->rows_cut || !p->model.n_vocab)
        return;
    for (int h = 0; h <= p->n_holders; h++)
        p->rows[h] = h > plan_home(p, plan_last_stage(p)) ? p->model.n_vocab : 0;
    p->rows_cut = true;
}

/* One more holder, of which no head, neuron or row is. */
static status add_holder(struct plan *p, int rank, const char *device)
{
    const int h = p->n_holders;
    if (h == PLAN_MAX_HOLDERS) {
        log_error("plan: more than %d devices", PLAN_MAX_HOLDERS);
        return ST_USAGE;
    }
    p->holders[h].rank = rank;
    snprintf(p->holders[h].device, sizeof p->holders[h].device, "%s", device);
    for (int l = 0; l < p->model.n_layers; l++)
        p->layers[l].heads[h + 1] = p->layers[l].heads[h];
    p->rows[h + 1] = p->rows[h];
    p->n_holders++;
    return ST_OK;
}

/* `to` comes after `from` and has nothing: what lies between them moves up. */
static void move_heads(struct plan_layer *layer, int from, int to)
{
    const int32_t n = layer->heads[from + 1] - layer->heads[from];
    for (int h = from + 1; h <= to; h++)
        layer->heads[h] -= n;
}

static void move_rows(struct plan *p, int from, int to)
{
    const int64_t n = p->rows[from + 1] - p->rows[from];
    for (int h = from + 1; h <= to; h++)
        p->rows[h] -= n;
}

/* The sets of layers that are equal stay the same. */
static status move_neurons(struct plan *p, int l, int from, int to, size_t *last_set)
{
    struct plan_layer *layer = &p->layers[l];
    const bool same = l > 0 && *last_set == layer->first_set && layer->n_sets == layer[-1].n_sets;
    *last_set = layer->first_set;
    if (!same)
        return sets_move(p, layer, from, to);
    layer->first_set = layer[-1].first_set;
    memcpy(layer->held, layer[-1].held, sizeof layer->held);
    return ST_OK;
}

status plan_give(struct plan *p, int rank, const char *device, const struct plan_gift *g)
{
    const int to = p->n_holders;
    size_t last_set = SIZE_MAX;
    cut_all(p);
    status st = add_holder(p, rank, device);
    for (int l = 0; l < p->model.n_layers && st == ST_OK; l++) {
        if (g->heads[l])
            move_heads(&p->layers[l], rank, to);
        if (g->neurons[l])
            st = move_neurons(p, l, rank, to, &last_set);
        else
            last_set = SIZE_MAX;
    }
    if (st == ST_OK && g->units)
        st = plan_keep_units(p, to, g->units);
    if (st == ST_OK && g->rows)
        move_rows(p, rank, to);
    if (st == ST_OK && g->home)
        p->homes[rank] = to;
    return st;
}

status plan_offload(struct plan *p, int rank, const char *device, int n)
{
    bool layers[PLAN_MAX_LAYERS] = {false};
    int left = n;
    for (int l = 0; l < p->model.n_layers && left > 0; l++)
        left -= layers[l] = has_layer(p, l, rank);
    return plan_give(p, rank, device,
                     &(struct plan_gift){.heads = layers, .neurons = layers, .rows = left > 0, .home = true});
}

/* n of them; NULL where there are none, or no memory for them. */
static void *copy_of(const void *array, size_t n, size_t element)
{
    void *copy = n ? malloc(n * element) : NULL;
    if (copy)
        memcpy(copy, array, n * element);
    return copy;
}

struct plan *plan_copy(const struct plan *p)
{
    struct plan *copy = copy_of(p, 1, sizeof *p);
    if (copy) {
        copy->layers = copy_of(p->layers, (size_t)p->model.n_layers, sizeof *p->layers);
        copy->sets = copy_of(p->sets, p->n_sets, sizeof *p->sets);
        copy->ranges = copy_of(p->ranges, p->n_ranges, sizeof *p->ranges);
        copy->sets_cap = p->n_sets;
        copy->ranges_cap = p->n_ranges;
        if (copy->layers && (copy->sets || !p->n_sets) && (copy->ranges || !p->n_ranges))
            return copy;
    }
    plan_free(copy);
    log_error("plan: no memory for a copy");
    return NULL;
}
