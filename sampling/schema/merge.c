/* What holds at once, as one schema: a $ref with what is beside it, all of allOf. Schemas within are not looked at; two
 * for the same place become an allOf there. */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "sampling/schema/making.h"

static status no_memory(void)
{
    log_error("schema: no memory for schemas that hold at once");
    return ST_NOMEM;
}

/* Takes the value, which may be NULL: no memory. */
static status set(json_t *into, const char *key, json_t *value)
{
    return json_object_set_new(into, key, value) == 0 ? ST_OK : no_memory();
}

json_t *copy_without(const json_t *flat, const char *keyword)
{
    json_t *copy = json_copy((json_t *)flat);
    if (copy)
        json_object_del(copy, keyword);
    return copy;
}

/* --- references --- */

static int hex_value(char c)
{
    const char *digits = "0123456789abcdef", *at = c ? strchr(digits, c | ('A' <= c && c <= 'Z' ? 0x20 : 0)) : NULL;
    return at ? (int)(at - digits) : -1;
}

/* Up to the next '/' or the end, without ~0, ~1 and %20; where it ended. */
static const char *next_name(const char *ref, char *out)
{
    for (; *ref && *ref != '/'; ref++) {
        char c = *ref;
        if (c == '%' && hex_value(ref[1]) >= 0 && hex_value(ref[2]) >= 0) {
            c = (char)(16 * hex_value(ref[1]) + hex_value(ref[2]));
            ref += 2;
        }
        if (c == '~' && (ref[1] == '0' || ref[1] == '1'))
            c = *++ref == '0' ? '~' : '/';
        *out++ = c;
    }
    *out = '\0';
    return ref;
}

static const json_t *member(const json_t *of, const char *name)
{
    char *end;
    if (!json_is_array(of))
        return json_object_get(of, name);
    const unsigned long index = strtoul(name, &end, 10);
    return *name && !*end ? json_array_get(of, index) : NULL;
}

status resolve(struct making *k, const char *ref, const struct where *at, const json_t **schema)
{
    const json_t *found = k->root;
    char *name = malloc(strlen(ref) + 1);
    if (!name)
        return no_memory();
    const char *rest = ref[0] == '#' ? ref + 1 : "?";
    while (*rest == '/' && found) {
        rest = next_name(rest + 1, name);
        found = member(found, name);
    }
    free(name);
    if (*rest || !(json_is_object(found) || json_is_boolean(found)))
        return schema_refuse(at, ST_USAGE, "$ref %s is no schema within this one", ref);
    *schema = found;
    return ST_OK;
}

/* --- two keywords --- */

enum { MERGE_WORK = 64 };


static bool says_nothing(const json_t *schema)
{
    return !schema || json_is_true(schema) || (json_is_object(schema) && json_object_size(schema) == 0);
}

/* A schema for where both hold, either of which may be NULL; NULL: no memory. */
static json_t *both(json_t *a, json_t *b)
{
    if (says_nothing(b) || a == b)
        return a ? json_incref(a) : json_true();
    return says_nothing(a) ? json_incref(b) : json_pack("{s:[O,O]}", "allOf", a, b);
}

static status set_both(json_t *into, const char *key, json_t *a, json_t *b)
{
    return set(into, key, both(a, b));
}

/* A name that only one of them knows is additional to the other. */
static status merge_objects(json_t *a, const json_t *b)
{
    static const char props[] = "properties", others[] = "additionalProperties";
    json_t *a_props = json_object_get(a, props), *b_props = json_object_get(b, props), *schema;
    json_t *a_others = json_object_get(a, others), *b_others = json_object_get(b, others);
    status st = ST_OK;
    const char *key;
    json_t *all = json_object();
    if (!all)
        return no_memory();
    json_object_foreach(a_props, key, schema) {
        json_t *theirs = json_object_get(b_props, key);
        if (st == ST_OK)
            st = set_both(all, key, schema, theirs ? theirs : b_others);
    }
    json_object_foreach(b_props, key, schema) {
        if (st == ST_OK && !json_object_get(a_props, key))
            st = set_both(all, key, a_others, schema);
    }
    if (st == ST_OK && (a_others || b_others))
        st = set_both(a, others, a_others, b_others);
    if (st == ST_OK && (a_props || b_props))
        st = set(a, props, json_incref(all));
    json_decref(all);
    return st;
}

static status merge_arrays(json_t *a, const json_t *b)
{
    static const char first[] = "prefixItems", others[] = "items";
    json_t *a_first = json_object_get(a, first), *b_first = json_object_get(b, first);
    json_t *a_others = json_object_get(a, others), *b_others = json_object_get(b, others);
    const size_t n_a = json_array_size(a_first), n_b = json_array_size(b_first);
    status st = ST_OK;
    json_t *all = json_array();
    if (!all)
        return no_memory();
    for (size_t i = 0; i < (n_a > n_b ? n_a : n_b) && st == ST_OK; i++)
        if (json_array_append_new(all, both(i < n_a ? json_array_get(a_first, i) : a_others,
                                            i < n_b ? json_array_get(b_first, i) : b_others)) != 0)
            st = no_memory();
    if (st == ST_OK && (a_others || b_others))
        st = set_both(a, others, a_others, b_others);
    if (st == ST_OK && (a_first || b_first))
        st = set(a, first, json_incref(all));
    json_decref(all);
    return st;
}

static status merge_required(json_t *a, json_t *b)
{
    for (size_t i = 0; i < json_array_size(b); i++)
        if (json_array_append(a, json_array_get(b, i)) != 0) /* twice is no harm */
            return no_memory();
    return ST_OK;
}

/* The values that are in both. */
static json_t *merge_values(json_t *a, json_t *b)
{
    json_t *all = json_array();
    for (size_t i = 0; i < json_array_size(a) && all; i++) {
        json_t *value = json_array_get(a, i);
        bool found = false;
        for (size_t j = 0; j < json_array_size(b) && !found; j++)
            found = json_equal(value, json_array_get(b, j));
        if (found && json_array_append(all, value) != 0) {
            json_decref(all);
            all = NULL;
        }
    }
    return all;
}

/* One of a, and what {key: b} says: a list of such. Of oneOf too: exactly one of a holds where b does. */
static json_t *merge_ways(const char *key, json_t *a, json_t *b)
{
    json_t *all = json_array();
    for (size_t i = 0; i < json_array_size(a) && all; i++)
        if (json_array_append_new(all, json_pack("{s:[O,{s:O}]}", "allOf", json_array_get(a, i), key, b)) != 0) {
            json_decref(all);
            all = NULL;
        }
    return all;
}

static bool is_less(const json_t *a, const json_t *b)
{
    if (json_is_integer(a) && json_is_integer(b))
        return json_integer_value(a) < json_integer_value(b);
    return json_number_value(a) < json_number_value(b);
}

/* What a keyword says in both, a and b. */
static status merge_keyword(json_t *into, const char *key, json_t *a, json_t *b, const struct where *at)
{
    if (strcmp(key, "type") == 0)
        return set(into, key, names_of_types(types_in(a) & types_in(b)));
    if (strcmp(key, "required") == 0) {
        json_t *all = json_copy(a);
        const status st = all ? merge_required(all, b) : no_memory();
        return st == ST_OK ? set(into, key, all) : (json_decref(all), st);
    }
    if (strcmp(key, "enum") == 0)
        return set(into, key, merge_values(a, b));
    if (strcmp(key, "anyOf") == 0 || strcmp(key, "oneOf") == 0)
        return set(into, key, merge_ways(key, a, b));
    if (strcmp(key, "pattern") == 0 || strcmp(key, "format") == 0)
        return json_equal(a, b) ? ST_OK : schema_refuse(at, ST_USAGE, "two of %s at once are not supported", key);
    const bool is_least = strncmp(key, "min", 3) == 0 || strcmp(key, "exclusiveMinimum") == 0;
    const bool keeps = strcmp(key, "multipleOf") == 0 || is_less(a, b) != is_least;
    return keeps ? ST_OK : set(into, key, json_incref(b));
}

static bool is_joint(const char *key)
{
    return strcmp(key, "properties") == 0 || strcmp(key, "additionalProperties") == 0 ||
           strcmp(key, "items") == 0 || strcmp(key, "prefixItems") == 0;
}

status merge(struct making *k, json_t *into, const json_t *flat, const struct where *at)
{
    const char *key;
    json_t *v;
    /* A merge wraps what both have once more: its price keeps that from going deep. */
    static const char *const lists[] = {"prefixItems", "required", "anyOf", "oneOf"};
    size_t work = MERGE_WORK + json_object_size(json_object_get(into, "properties")) +
                  json_object_size(json_object_get(flat, "properties")) +
                  work_to_compare(json_object_get(into, "enum"), json_object_get(flat, "enum"));
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        work += json_array_size(json_object_get(into, lists[i])) + json_array_size(json_object_get(flat, lists[i]));
    status st = spend(k, work, at);
    if (st == ST_OK)
        st = merge_objects(into, flat);
    if (st == ST_OK)
        st = merge_arrays(into, flat);
    json_object_foreach((json_t *)flat, key, v) {
        json_t *mine = json_object_get(into, key);
        if (st != ST_OK || is_joint(key))
            continue;
        st = mine ? merge_keyword(into, key, mine, v, at) : set(into, key, json_incref(v));
    }
    return st;
}

/* --- flat schemas --- */

static status add(struct making *k, json_t *flat, const json_t *schema, const struct where *at)
{
    json_t *other;
    status st = flatten(k, schema, at, &other);
    if (st != ST_OK)
        return st;
    st = merge(k, flat, other, at);
    json_decref(other);
    return st;
}

static status add_referred(struct making *k, json_t *flat, const char *ref, const struct where *at)
{
    const json_t *schema;
    status st = resolve(k, ref, at, &schema);
    return st == ST_OK ? add(k, flat, schema, &(struct where){NULL, ref, 0}) : st;
}

static status add_all(struct making *k, json_t *flat, const json_t *all, const struct where *at)
{
    const struct where list = {at, "allOf", 0};
    status st = ST_OK;
    for (size_t i = 0; i < json_array_size(all) && st == ST_OK; i++)
        st = add(k, flat, json_array_get(all, i), &(struct where){&list, NULL, i});
    return st;
}

/* The keywords that are understood, as they are; const as a list of one. */
static status copy_keywords(json_t *flat, const json_t *schema)
{
    const char *key;
    json_t *v;
    status st = ST_OK;
    json_object_foreach((json_t *)schema, key, v) {
        if (st == ST_OK && is_assertion(key) && strcmp(key, "$ref") && strcmp(key, "allOf") && strcmp(key, "const"))
            st = set(flat, key, json_incref(v));
    }
    if (st != ST_OK || !(v = json_object_get(schema, "const")))
        return st;
    json_t *one = json_pack("[O]", v), *values = json_object_get(schema, "enum");
    st = set(flat, "enum", values && one ? merge_values(values, one) : json_incref(one));
    json_decref(one);
    return st;
}

status flatten(struct making *k, const json_t *schema, const struct where *at, json_t **out)
{
    const char *ref = json_string_value(json_object_get(schema, "$ref"));
    status st = spend(k, 1 + json_object_size(schema), at);
    if (st != ST_OK)
        return st;
    if (json_is_false(schema)) /* none of no values */
        return (*out = json_pack("{s:[]}", "enum")) ? ST_OK : no_memory();
    json_t *flat = json_object();
    if (!flat)
        return no_memory();
    k->nested++;
    if ((st = check_keywords(schema, at)) == ST_OK && (st = copy_keywords(flat, schema)) == ST_OK && ref)
        st = add_referred(k, flat, ref, at);
    if (st == ST_OK)
        st = add_all(k, flat, json_object_get(schema, "allOf"), at);
    k->nested--;
    if (st == ST_OK)
        *out = flat;
    else
        json_decref(flat);
    return st;
}
