/* The neurons of a plan's layers: the boundaries or the ranks' lists of version 1, and the sets of version 2. */
#include <inttypes.h>
#include <stdio.h>

#include "placement/plan_json.h"
#include "placement/ranges.h"

static status read_cut(const struct plan_reader *r, const struct place *at, const json_t *v, struct plan_layer *layer)
{
    const struct plan_shape *shape = &layer->shape;
    int64_t bound[PLAN_MAX_HOLDERS + 1];
    status st = plan_read_bounds(r, at, "neurons", v, shape->neuron_unit, shape->d_ff, shape->d_ff, bound);
    return st != ST_OK ? st : sets_cut(r->p, bound, 1, layer);
}

static status check_lists(const struct plan_reader *r, const struct place *at, const struct plan_layer *layer)
{
    struct sets_fault fault;
    status st = sets_check(r->p, layer, &fault);
    if (st != ST_OK || fault.neuron < 0)
        return st;
    return field_refuse(at->where, "%sneurons: neuron %" PRId64 " %s", at->prefix, fault.neuron,
                        fault.set < 0 ? "is not listed" : "is listed twice");
}

/* A list of ranges for each rank: its set. */
static status read_lists(const struct plan_reader *r, const struct place *at, const json_t *v, struct plan_layer *layer)
{
    struct plan *p = r->p;
    layer->splits_units = true;
    layer->first_set = p->n_sets;
    if (json_array_size(v) != (size_t)p->n_ranks)
        return field_refuse(at->where, "%sneurons has %zu lists of ranges, expected %d (one for each rank)", at->prefix,
                            json_array_size(v), p->n_ranks);
    for (int rank = 0; rank < p->n_ranks; rank++) {
        const size_t start = p->n_ranges;
        char name[32];
        snprintf(name, sizeof name, "neurons[%d]", rank);
        status st = plan_read_ranges(r, at, name, json_array_get(v, (size_t)rank), &layer->shape, false);
        if (st == ST_OK)
            st = sets_add(p, rank, start);
        if (st != ST_OK)
            return st;
    }
    status st = sets_end(p, layer);
    return st != ST_OK ? st : check_lists(r, at, layer);
}

status plan_read_neurons(const struct plan_reader *r, const struct place *at, const json_t *v, struct plan_layer *layer)
{
    if (!json_is_array(v))
        return field_refuse(at->where, "%sneurons is %s, expected an array", at->prefix, field_type_name(v));
    return (json_is_array(json_array_get(v, 0)) ? read_lists : read_cut)(r, at, v, layer);
}

static status read_set(const struct plan_reader *r, const struct place *at, size_t i, json_t *v,
                       const struct plan_layer *layer)
{
    static const char *const keys[] = {"holder", "neurons", NULL};
    const size_t start = r->p->n_ranges;
    struct place in = {.where = at->where};
    int64_t holder = 0;
    status st;
    snprintf(in.prefix, sizeof in.prefix, "%.32ssets[%zu].", at->prefix, i);
    if (!json_is_object(v))
        return field_refuse(at->where, "%ssets[%zu] is %s, expected an object", at->prefix, i, field_type_name(v));
    if ((st = field_check_keys(&in, v, keys)) != ST_OK ||
        (st = field_get_int(&in, v, "holder", 0, r->p->n_holders - 1, &holder)) != ST_OK ||
        (st = plan_read_ranges(r, &in, "neurons", json_object_get(v, "neurons"), &layer->shape,
                               !layer->splits_units)) != ST_OK)
        return st;
    if (r->p->n_ranges == start)
        return field_refuse(at->where, "%sneurons is empty, expected a range: a set has neurons", in.prefix);
    return sets_add(r->p, (int)holder, start);
}

static status check_sets(const struct plan_reader *r, const struct place *at, const struct plan_layer *layer)
{
    struct sets_fault fault;
    status st = sets_check(r->p, layer, &fault);
    if (st != ST_OK || fault.neuron < 0)
        return st;
    if (fault.set < 0)
        return field_refuse(at->where, "%ssets: neuron %" PRId64 " is in none of them", at->prefix, fault.neuron);
    return field_refuse(at->where, "%ssets[%d].neurons: neuron %" PRId64 " is in sets[%d] too", at->prefix, fault.set,
                        fault.neuron, fault.other);
}

status plan_read_sets(const struct plan_reader *r, const struct place *at, const json_t *v, struct plan_layer *layer)
{
    layer->first_set = r->p->n_sets;
    if (!json_is_array(v))
        return field_refuse(at->where, "%ssets is %s, expected an array", at->prefix, field_type_name(v));
    for (size_t i = 0; i < json_array_size(v); i++) {
        status st = read_set(r, at, i, json_array_get(v, i), layer);
        if (st != ST_OK)
            return st;
    }
    status st = sets_end(r->p, layer);
    return st != ST_OK ? st : check_sets(r, at, layer);
}
