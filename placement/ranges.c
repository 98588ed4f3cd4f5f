#include "placement/ranges.h"

#include <stdlib.h>

#include "base/log.h"

/* Room for one more; *cap counts elements. */
static status grow(void **array, size_t *cap, size_t element, const char *what)
{
    const size_t larger = *cap ? 2 * *cap : 64;
    void *moved = realloc(*array, larger * element);
    if (!moved) {
        log_error("plan: no memory for %zu %s of neurons", larger, what);
        return ST_NOMEM;
    }
    *array = moved;
    *cap = larger;
    return ST_OK;
}

static status append(struct plan *p, struct neuron_range range)
{
    void *ranges = p->ranges;
    status st = p->n_ranges < p->ranges_cap ? ST_OK : grow(&ranges, &p->ranges_cap, sizeof *p->ranges, "ranges");
    if (st != ST_OK)
        return st;
    p->ranges = ranges;
    p->ranges[p->n_ranges++] = range;
    return ST_OK;
}

status ranges_add(struct plan *p, size_t start, int64_t begin, int64_t end)
{
    if (begin == end)
        return ST_OK;
    if (p->n_ranges > start && p->ranges[p->n_ranges - 1].end == begin) {
        p->ranges[p->n_ranges - 1].end = (int32_t)end;
        return ST_OK;
    }
    return append(p, (struct neuron_range){(int32_t)begin, (int32_t)end});
}

static status append_set(struct plan *p, struct plan_set set)
{
    void *sets = p->sets;
    status st = p->n_sets < p->sets_cap ? ST_OK : grow(&sets, &p->sets_cap, sizeof *p->sets, "sets");
    if (st != ST_OK)
        return st;
    p->sets = sets;
    p->sets[p->n_sets++] = set;
    return ST_OK;
}

status sets_add(struct plan *p, int holder, size_t start)
{
    if (p->n_ranges == start)
        return ST_OK;
    return append_set(p, (struct plan_set){holder, {start, (int)(p->n_ranges - start)}});
}

/* Other layers may have the same sets, so these are copies. */
status sets_move(struct plan *p, struct plan_layer *layer, int from, int to)
{
    const size_t first = p->n_sets;
    for (size_t i = 0; i < layer->n_sets; i++) {
        struct plan_set set = p->sets[layer->first_set + i];
        set.holder = set.holder == from ? to : set.holder;
        status st = append_set(p, set);
        if (st != ST_OK)
            return st;
    }
    layer->first_set = first;
    layer->held[to] = layer->held[from];
    layer->held[from] = (struct range_span){0};
    return ST_OK;
}

status sets_cut(struct plan *p, const int64_t *bound, int n_bundles, struct plan_layer *layer)
{
    layer->first_set = p->n_sets;
    for (int h = 0; h < p->n_holders; h++) {
        const size_t start = p->n_ranges;
        status st = ST_OK;
        for (const int64_t *at = bound + h; at < bound + n_bundles * (p->n_holders + 1) && !st; at += p->n_holders + 1)
            st = ranges_add(p, start, at[0], at[1]);
        if (st == ST_OK)
            st = sets_add(p, h, start);
        if (st != ST_OK)
            return st;
    }
    return sets_end(p, layer);
}

static int ascending(const void *a, const void *b)
{
    const struct neuron_range *x = a, *y = b;
    return (x->begin > y->begin) - (x->begin < y->begin);
}

/* The neurons of a holder that has several sets: their ranges once more, in order, those that touch as one. */
static status join(struct plan *p, const struct plan_layer *layer, int holder, struct range_span *out)
{
    const size_t start = p->n_ranges;
    for (size_t i = layer->first_set; i < layer->first_set + layer->n_sets; i++) {
        const struct range_span from = p->sets[i].ranges;
        for (int j = 0; j < from.n && p->sets[i].holder == holder; j++) {
            status st = append(p, p->ranges[from.first + (size_t)j]);
            if (st != ST_OK)
                return st;
        }
    }
    const size_t end = p->n_ranges;
    qsort(p->ranges + start, end - start, sizeof *p->ranges, ascending);
    p->n_ranges = start;
    for (size_t i = start; i < end; i++) { /* never grows: at most as many as before */
        const struct neuron_range range = p->ranges[i];
        status st = ranges_add(p, start, range.begin, range.end);
        if (st != ST_OK)
            return st;
    }
    *out = (struct range_span){start, (int)(p->n_ranges - start)};
    return ST_OK;
}

status sets_end(struct plan *p, struct plan_layer *layer)
{
    size_t n[PLAN_MAX_HOLDERS] = {0};
    status st = ST_OK;
    layer->n_sets = p->n_sets - layer->first_set;
    for (size_t i = layer->first_set; i < p->n_sets; i++) {
        layer->held[p->sets[i].holder] = p->sets[i].ranges;
        n[p->sets[i].holder]++;
    }
    for (int h = 0; h < p->n_holders && st == ST_OK; h++)
        if (n[h] > 1)
            st = join(p, layer, h, &layer->held[h]);
    return st;
}

/* A range and the set that it is of. */
struct piece {
    struct neuron_range range;
    int set;
};

static int first_begins(const void *a, const void *b)
{
    const struct piece *x = a, *y = b;
    const int order = ascending(&x->range, &y->range);
    return order ? order : (x->set > y->set) - (x->set < y->set);
}

static struct sets_fault find_fault(const struct piece *piece, size_t n, int64_t n_neurons)
{
    int64_t done = 0;
    for (size_t i = 0; i < n; i++) {
        if (piece[i].range.begin > done)
            break;
        if (piece[i].range.begin < done)
            return (struct sets_fault){piece[i].range.begin, piece[i].set, piece[i - 1].set};
        done = piece[i].range.end;
    }
    return (struct sets_fault){done < n_neurons ? done : -1, -1, -1};
}

status sets_check(const struct plan *p, const struct plan_layer *layer, struct sets_fault *fault)
{
    const struct plan_set *sets = p->sets + layer->first_set;
    size_t n = 0, filled = 0;
    for (size_t i = 0; i < layer->n_sets; i++)
        n += (size_t)sets[i].ranges.n;
    struct piece *piece = malloc((n ? n : 1) * sizeof *piece);
    if (!piece) {
        log_error("plan: no memory to check %zu ranges of neurons", n);
        return ST_NOMEM;
    }
    for (size_t i = 0; i < layer->n_sets; i++)
        for (int j = 0; j < sets[i].ranges.n; j++)
            piece[filled++] = (struct piece){p->ranges[sets[i].ranges.first + (size_t)j], (int)i};
    qsort(piece, n, sizeof *piece, first_begins);
    *fault = find_fault(piece, n, plan_shape_neurons(&layer->shape));
    free(piece);
    return ST_OK;
}
