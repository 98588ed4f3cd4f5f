/* Neurons that fire often on a device, the others on its rank's CPU: by whole units, so that no bit changes. */
#include "placement/plan.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "placement/ranges.h"

/* Some of a holder's neurons that are rounded together whoever has them. */
struct unit {
    double heat;  /* how many of them fire at a token */
    size_t at;    /* its place in the order of layers and neurons */
};

static int32_t unit_of(const struct plan *p, int layer) { return (int32_t)p->layers[layer].shape.neuron_unit; }

/* Where the unit that begins at `begin` of a range ends. */
static int32_t end_of(const struct plan *p, int layer, int32_t begin, int32_t end)
{
    return end - begin > unit_of(p, layer) ? begin + unit_of(p, layer) : end;
}

int64_t plan_count_units(const struct plan *p, int holder)
{
    int64_t n = 0;
    for (int l = 0; l < p->model.n_layers; l++) {
        const struct neuron_range *ranges;
        if (p->layers[l].splits_units || !unit_of(p, l))
            return 0;
        for (int i = plan_neurons(p, l, holder, &ranges); i > 0; i--)
            n += (ranges[i - 1].end - ranges[i - 1].begin - 1) / unit_of(p, l) + 1;
    }
    return n;
}

static void list_units(const struct plan *p, int holder, const float *const *fired, struct unit *units)
{
    size_t n = 0;
    for (int l = 0; l < p->model.n_layers; l++) {
        const struct neuron_range *ranges;
        const int n_ranges = plan_neurons(p, l, holder, &ranges);
        for (int i = 0; i < n_ranges; i++) {
            for (int32_t j = ranges[i].begin, end; j < ranges[i].end; j = end) {
                end = end_of(p, l, j, ranges[i].end);
                units[n] = (struct unit){.at = n};
                for (int32_t k = j; k < end; k++)
                    units[n].heat += (double)fired[l][k];
                n++;
            }
        }
    }
}

/* The hottest first; of equals, that of the lower layer and number. */
static int hotter(const void *a, const void *b)
{
    const struct unit *x = a, *y = b;
    return x->heat != y->heat ? (x->heat < y->heat ? 1 : -1) : (x->at > y->at) - (x->at < y->at);
}

/* Of what the holder had of a layer, the units for which stay[] is `stays`; begins at stay[*at]. */
static status add_units(struct plan *p, int layer, struct range_span had, const bool *stay, bool stays, size_t *at)
{
    const size_t start = p->n_ranges;
    status st = ST_OK;
    for (int i = 0; i < had.n; i++) {
        const struct neuron_range range = p->ranges[had.first + (size_t)i];
        for (int32_t j = range.begin, end; j < range.end && st == ST_OK; j = end) {
            end = end_of(p, layer, j, range.end);
            if (stay[(*at)++] == stays)
                st = ranges_add(p, start, j, end);
        }
    }
    return st;
}

/* What others have of a layer, once more. */
static status add_ranges(struct plan *p, struct range_span had)
{
    const size_t start = p->n_ranges;
    status st = ST_OK;
    for (int i = 0; i < had.n && st == ST_OK; i++) {
        const struct neuron_range range = p->ranges[had.first + (size_t)i];
        st = ranges_add(p, start, range.begin, range.end);
    }
    return st;
}

static status part_layer(struct plan *p, int l, int holder, const bool *stay, size_t *at)
{
    struct plan_layer *layer = &p->layers[l];
    const struct plan_layer before = *layer;
    const int cpu = p->holders[holder].rank;
    const size_t first = *at;
    status st = ST_OK;
    layer->first_set = p->n_sets;
    memset(layer->held, 0, sizeof layer->held);
    for (int h = 0; h < p->n_holders && st == ST_OK; h++) {
        const size_t start = p->n_ranges;
        *at = h == holder || h == cpu ? first : *at;
        st = h == holder || h == cpu ? add_units(p, l, before.held[holder], stay, h == holder, at)
                                     : add_ranges(p, before.held[h]);
        st = st == ST_OK ? sets_add(p, h, start) : st;
    }
    return st == ST_OK ? sets_end(p, layer) : st;
}

status plan_keep_units(struct plan *p, int holder, const bool *stay)
{
    status st = ST_OK;
    size_t at = 0;
    for (int l = 0; l < p->model.n_layers && st == ST_OK; l++)
        st = part_layer(p, l, holder, stay, &at);
    return st;
}

status plan_keep_hot(struct plan *p, int holder, const float *const *fired, int64_t n)
{
    const int64_t n_units = plan_count_units(p, holder);
    struct unit *units = calloc((size_t)n_units + 1, sizeof *units);
    bool *hot = calloc((size_t)n_units + 1, sizeof *hot);
    status st = ST_OK;
    if (!units || !hot) {
        log_error("plan: no memory to choose among %lld units of neurons", (long long)n_units);
        st = ST_NOMEM;
    } else {
        list_units(p, holder, fired, units);
        qsort(units, (size_t)n_units, sizeof *units, hotter);
    }
    for (int64_t i = 0; i < n && i < n_units && st == ST_OK; i++)
        hot[units[i].at] = true;
    st = st ? st : plan_keep_units(p, holder, hot);
    free(units);
    free(hot);
    return st;
}
