/* Values that several parts of a plan have. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "placement/plan_json.h"
#include "placement/ranges.h"

status plan_read_bounds(const struct plan_reader *r, const struct place *at, const char *key, const json_t *v,
                        int64_t unit, int64_t least, int64_t most, int64_t bound[PLAN_MAX_HOLDERS + 1])
{
    const size_t n = (size_t)r->p->n_holders + 1;
    int64_t low = 0;
    char name[32];
    if (!json_is_array(v))
        return field_refuse(at->where, "%s%s is %s, expected an array of boundaries", at->prefix, key,
                            field_type_name(v));
    if (json_array_size(v) != n)
        return field_refuse(at->where, "%s%s has %zu boundaries, expected %zu (one more than %s)", at->prefix, key,
                            json_array_size(v), n, r->version == 1 ? "ranks" : "holders");
    for (size_t i = 0; i < n; i++) {
        snprintf(name, sizeof name, "%s[%zu]", key, i);
        status st = field_check_int(at, name, json_array_get(v, i), i == n - 1 && low < least ? least : low,
                                   i == 0 ? 0 : most, &bound[i]);
        if (st != ST_OK)
            return st;
        low = bound[i];
    }
    for (size_t i = 0; i < n && unit; i++) {
        if (bound[i] % unit != 0 && bound[i] != low)
            return field_refuse(at->where, "%s%s[%zu] is %" PRId64 ", expected a multiple of %" PRId64, at->prefix, key,
                                i, bound[i], unit);
    }
    return ST_OK;
}

status plan_read_ranges(const struct plan_reader *r, const struct place *at, const char *name, const json_t *v,
                        const struct plan_shape *shape, bool on_units)
{
    const size_t start = r->p->n_ranges;
    const int64_t n = plan_shape_neurons(shape), unit = shape->neuron_unit;
    int64_t begin = 0, end = 0;
    if (!json_is_array(v))
        return field_refuse(at->where, "%s%s is %s, expected an array of ranges", at->prefix, name, field_type_name(v));
    for (size_t i = 0; i < json_array_size(v); i++) {
        const json_t *range = json_array_get(v, i);
        char bound[64];
        if (!json_is_array(range) || json_array_size(range) != 2)
            return field_refuse(at->where, "%s%s[%zu] is no range, expected [begin, end]", at->prefix, name, i);
        snprintf(bound, sizeof bound, "%s[%zu][0]", name, i);
        status st = field_check_int(at, bound, json_array_get(range, 0), end, n - 1, &begin);
        if (st != ST_OK)
            return st;
        if (on_units && unit && !plan_on_unit(shape, (int32_t)begin, unit))
            return field_refuse(at->where, "%s%s is %" PRId64 ", expected a multiple of %" PRId64
                                "%s where \"units\" are not \"split\"", at->prefix, bound, begin, unit,
                                shape->n_experts ? " of an expert's neurons" : "");
        snprintf(bound, sizeof bound, "%s[%zu][1]", name, i);
        if ((st = field_check_int(at, bound, json_array_get(range, 1), begin + 1, n, &end)) != ST_OK ||
            (st = ranges_add(r->p, start, begin, end)) != ST_OK)
            return st;
    }
    return ST_OK;
}

status plan_read_choice(const struct place *at, const char *key, const json_t *v, const char *first, const char *second,
                        bool *is_second)
{
    const char *text = json_string_value(v);
    if (!v)
        return ST_OK;
    if (!text || (strcmp(text, first) != 0 && strcmp(text, second) != 0))
        return field_refuse(at->where, "%s%s is %s%.64s, expected \"%s\" or \"%s\"", at->prefix, key,
                            text ? "" : field_type_name(v), text ? text : "", first, second);
    *is_second = strcmp(text, second) == 0;
    return ST_OK;
}
