/* oneOf: a grammar can allow each of its schemas, but not that two hold at once. So it must be plain that no two do. */
#include <string.h>

#include "base/log.h"
#include "sampling/schema/making.h"

static unsigned types_of_flat(const json_t *flat)
{
    const json_t *values = json_object_get(flat, "enum");
    const unsigned may = types_in(json_object_get(flat, "type"));
    unsigned all = 0;
    for (size_t i = 0; i < json_array_size(values); i++)
        all |= type_of(json_array_get(values, i));
    return values ? may & all : may;
}

static bool share_values(const json_t *a, const json_t *b)
{
    for (size_t i = 0; i < json_array_size(a); i++)
        for (size_t j = 0; j < json_array_size(b); j++)
            if (json_equal(json_array_get(a, i), json_array_get(b, j)))
                return true;
    return false;
}

static bool forbids(const json_t *flat, const char *name)
{
    return json_is_false(json_object_get(flat, "additionalProperties")) &&
           !json_object_get(json_object_get(flat, "properties"), name);
}

static status require(json_t *flat, const char *name)
{
    json_t *old = json_object_get(flat, "required"), *all = old ? json_copy(old) : json_array();
    if (is_required(flat, name)) {
        json_decref(all);
        return ST_OK;
    }
    if (!all || json_array_append_new(all, json_string(name)) != 0 || json_object_set(flat, "required", all) != 0) {
        json_decref(all);
        log_error("schema: no memory for a required name");
        return ST_NOMEM;
    }
    json_decref(all);
    return ST_OK;
}

static status are_apart(struct making *k, json_t *a, json_t *b, const struct where *at, bool *apart);

/* Whether the schemas of a property of both are apart. */
static status property_apart(struct making *k, const char *name, const json_t *a, const json_t *b,
                             const struct where *at, bool *apart)
{
    json_t *flat_a = NULL, *flat_b = NULL;
    const struct where properties = {at, "properties", 0}, here = {&properties, name, 0};
    status st = flatten(k, a, &here, &flat_a);
    if (st == ST_OK)
        st = flatten(k, b, &here, &flat_b);
    if (st == ST_OK)
        st = are_apart(k, flat_a, flat_b, &here, apart);
    json_decref(flat_a);
    json_decref(flat_b);
    return st;
}

/* Of objects: by a property that one requires and the other forbids, or by one whose values are apart. Without that
 * property both could hold, so both require it from then on, whether the schema does or not. */
static status objects_apart(struct making *k, json_t *a, json_t *b, const struct where *at, bool *apart)
{
    json_t *of_a = json_object_get(a, "properties"), *of_b = json_object_get(b, "properties"), *schema;
    const char *name;
    const size_t n_required = json_array_size(json_object_get(a, "required")) +
                              json_array_size(json_object_get(b, "required"));
    status st = spend(k, (json_object_size(of_a) + json_object_size(of_b)) * (1 + n_required), at);
    json_object_foreach(of_a, name, schema) {
        json_t *other = json_object_get(of_b, name);
        if (st != ST_OK || *apart)
            break;
        if (!other && is_required(a, name) && forbids(b, name))
            *apart = true;
        else if (other && (st = property_apart(k, name, schema, other, at, apart)) == ST_OK && *apart)
            if ((st = require(a, name)) == ST_OK)
                st = require(b, name);
    }
    json_object_foreach(of_b, name, schema) {
        if (is_required(b, name) && forbids(a, name))
            *apart = true;
    }
    return st;
}

static status are_apart(struct making *k, json_t *a, json_t *b, const struct where *at, bool *apart)
{
    const json_t *values_a = json_object_get(a, "enum"), *values_b = json_object_get(b, "enum");
    const unsigned shared = types_of_flat(a) & types_of_flat(b);
    status st = spend(k, work_to_compare(values_a, values_b), at);
    if (st != ST_OK)
        return st;
    *apart = !shared || (values_a && values_b && !share_values(values_a, values_b));
    if (*apart || shared != TYPE_OBJECT || values_a || values_b)
        return ST_OK;
    k->nested++;
    st = objects_apart(k, a, b, at, apart);
    k->nested--;
    return st;
}

status keep_apart(struct making *k, json_t *flats, const struct where *at)
{
    for (size_t i = 1; i < json_array_size(flats); i++)
        for (size_t j = 0; j < i; j++) {
            bool apart = false;
            status st = are_apart(k, json_array_get(flats, j), json_array_get(flats, i), at, &apart);
            if (st == ST_OK && !apart)
                st = schema_refuse(at, ST_USAGE, "oneOf is not supported where two may hold, as %zu and %zu may", j, i);
            if (st != ST_OK)
                return st;
        }
    return ST_OK;
}
