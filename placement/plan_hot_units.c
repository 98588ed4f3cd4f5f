/* Some neurons on a device, the others on its rank's CPU: by whole units, so that no bit changes. */
#include "placement/plan.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "placement/ranges.h"

/* Some of a holder's neurons that are rounded together whoever has them. */
struct unit {
    int32_t marked, size;
    size_t at;            /* its place in the order of layers and neurons */
};

/* Where the unit that begins at `begin` of a range ends. */
static int32_t end_of(const struct plan *p, int layer, int32_t begin, int32_t end)
{
    const int32_t of_unit = plan_unit_end(&p->layers[layer].shape, begin);
    return of_unit < end ? of_unit : end;
}

int64_t plan_count_units(const struct plan *p, int holder)
{
    int64_t n = 0;
    for (int l = 0; l < p->model.n_layers; l++) {
        const struct neuron_range *ranges;
        if (p->layers[l].splits_units || !p->layers[l].shape.neuron_unit)
            return 0;
        for (int i = plan_neurons(p, l, holder, &ranges); i > 0; i--)
            for (int32_t j = ranges[i - 1].begin; j < ranges[i - 1].end; j = end_of(p, l, j, ranges[i - 1].end))
                n++;
    }
    return n;
}

/* A layer's units, numbered from *at on. Returns how many. */
static size_t list_layer(const struct plan *p, int l, int holder, const int32_t *marks, struct unit *units, size_t *at)
{
    size_t n = 0;
    const struct neuron_range *ranges;
    const int n_ranges = plan_neurons(p, l, holder, &ranges);
    for (int i = 0; i < n_ranges; i++) {
        for (int32_t j = ranges[i].begin, end; j < ranges[i].end; j = end) {
            end = end_of(p, l, j, ranges[i].end);
            units[n] = (struct unit){.size = end - j, .at = (*at)++};
            for (int32_t k = j; k < end; k++)
                units[n].marked += marks[k];
            n++;
        }
    }
    return n;
}

/* Those with most marks first; of equals, the lower one. */
static int more_marked(const void *a, const void *b)
{
    const struct unit *x = a, *y = b;
    return x->marked != y->marked ? y->marked - x->marked : (x->at > y->at) - (x->at < y->at);
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

/* Whether units stay, none so far; room to sort them in *units. The caller frees both. */
static bool *list_stays(const struct plan *p, int holder, struct unit **units)
{
    const size_t n = (size_t)plan_count_units(p, holder);
    bool *stay = calloc(n + 1, sizeof *stay);
    *units = calloc(n + 1, sizeof **units);
    if (stay && *units)
        return stay;
    log_error("plan: no memory to choose among %zu units of neurons", n);
    free(stay);
    free(*units);
    return NULL;
}

status plan_keep_marked(struct plan *p, int holder, const int32_t *const *marks)
{
    struct unit *units;
    bool *stay = list_stays(p, holder, &units);
    size_t at = 0;
    if (!stay)
        return ST_NOMEM;
    for (int l = 0; l < p->model.n_layers; l++) {
        const size_t n = list_layer(p, l, holder, marks[l], units, &at);
        double left = 0;
        for (size_t i = 0; i < n; i++)
            left += units[i].marked;
        qsort(units, n, sizeof *units, more_marked);
        for (size_t i = 0; i < n && left >= units[i].size / 2.0; left -= units[i++].size)
            stay[units[i].at] = true;
    }
    status st = plan_keep_units(p, holder, stay);
    free(units);
    free(stay);
    return st;
}
