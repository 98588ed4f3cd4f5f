#include "sampling/schema/schema.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "sampling/schema/making.h"
#include "sampling/ways.h"

/* --- references: a rule for what each names --- */

static status no_memory(void)
{
    log_error("schema: no memory");
    return ST_NOMEM;
}

/* Its index. The rule is made later: until then there is a place that will lead to it. */
static status find_rule(struct making *k, const json_t *schema, const char *path, uint32_t *place)
{
    for (size_t i = 0; i < k->n_rules; i++)
        if (k->rules[i].schema == schema) {
            *place = k->rules[i].place;
            return ST_OK;
        }
    if (k->n_rules == k->cap_rules) {
        const size_t cap = k->cap_rules ? 2 * k->cap_rules : 8;
        struct rule *rules = realloc(k->rules, cap * sizeof *rules);
        if (!rules)
            return no_memory();
        k->rules = rules;
        k->cap_rules = cap;
    }
    char *copy = strdup(path);
    if (!copy)
        return no_memory();
    const uint32_t over = grammar_jump(k->m, NOWHERE);
    *place = grammar_jump(k->m, NOWHERE);
    grammar_patch(k->m, over, grammar_here(k->m));
    k->rules[k->n_rules++] = (struct rule){schema, copy, *place};
    return ST_OK;
}

static status call_rule(struct making *k, const char *ref, const struct where *at)
{
    const json_t *schema;
    uint32_t place;
    status st = resolve(k, ref, at, &schema);
    if (st == ST_OK)
        st = spend(k, 1 + k->n_rules, at);
    if (st == ST_OK)
        st = find_rule(k, schema, ref, &place);
    if (st == ST_OK)
        grammar_call(k->m, place);
    return st;
}

/* Those that came up, and those that come up in them. */
static status make_rules(struct making *k)
{
    status st = k->m->st;
    for (size_t i = 0; i < k->n_rules && st == ST_OK; i++) {
        const struct where at = {NULL, k->rules[i].path, 0};
        grammar_patch(k->m, k->rules[i].place, grammar_here(k->m));
        st = k->value(k, k->rules[i].schema, &at);
        grammar_return(k->m);
    }
    return st;
}

/* --- values --- */

static status make_flat(struct making *k, json_t *flat, const struct where *at);

/* What is said where a schema is one of several: that, and all that is said beside them. */
static status flatten_way(struct making *k, const json_t *beside, const json_t *schema, const struct where *at,
                          json_t **out)
{
    json_t *flat, *way = json_copy((json_t *)beside);
    if (!way)
        return no_memory();
    status st = flatten(k, schema, at, &flat);
    if (st == ST_OK) {
        st = merge(k, way, flat, at);
        json_decref(flat);
    }
    if (st == ST_OK)
        *out = way;
    else
        json_decref(way);
    return st;
}

static status make_way(struct making *k, const json_t *beside, const json_t *schema, const struct where *at)
{
    json_t *flat;
    if (json_object_size(beside) == 0)
        return k->value(k, schema, at);
    status st = flatten_way(k, beside, schema, at, &flat);
    if (st != ST_OK)
        return st;
    st = make_flat(k, flat, at);
    json_decref(flat);
    return st;
}

static status make_any_of(struct making *k, const json_t *flat, const struct where *at)
{
    const json_t *all = json_object_get(flat, "anyOf");
    const struct where list = {at, "anyOf", 0};
    json_t *beside = copy_without(flat, "anyOf");
    struct ways w;
    status st = ST_OK;
    if (!beside)
        return no_memory();
    ways_begin(k->m, &w);
    for (size_t i = 0; i < json_array_size(all) && st == ST_OK; i++) {
        ways_next(k->m, &w);
        st = make_way(k, beside, json_array_get(all, i), &(struct where){&list, NULL, i});
    }
    ways_end(k->m, &w);
    json_decref(beside);
    return st;
}

static status flatten_ways(struct making *k, const json_t *flat, const json_t *all, const struct where *list,
                           json_t *flats)
{
    json_t *beside = copy_without(flat, "oneOf"), *one;
    status st = beside ? ST_OK : no_memory();
    for (size_t i = 0; i < json_array_size(all) && st == ST_OK; i++) {
        st = flatten_way(k, beside, json_array_get(all, i), &(struct where){list, NULL, i}, &one);
        if (st == ST_OK && json_array_append_new(flats, one) != 0)
            st = no_memory();
    }
    json_decref(beside);
    return st;
}

static status make_one_of(struct making *k, const json_t *flat, const struct where *at)
{
    const json_t *all = json_object_get(flat, "oneOf");
    const struct where list = {at, "oneOf", 0};
    json_t *flats = json_array();
    struct ways w;
    if (!flats)
        return no_memory();
    status st = flatten_ways(k, flat, all, &list, flats);
    if (st == ST_OK)
        st = keep_apart(k, flats, at);
    ways_begin(k->m, &w);
    for (size_t i = 0; i < json_array_size(flats) && st == ST_OK; i++) {
        ways_next(k->m, &w);
        st = make_flat(k, json_array_get(flats, i), &(struct where){&list, NULL, i});
    }
    ways_end(k->m, &w);
    json_decref(flats);
    return st;
}

/* Whether a keyword beside enum says something about one of its values that only reading them could tell. */
static status check_beside(const json_t *flat, unsigned types, const struct where *at)
{
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)flat, key, v) {
        if (speaks_of(key) & types && strcmp(key, "format") != 0)
            return schema_refuse(at, ST_USAGE, "%s beside enum or const is not supported", key);
    }
    return ST_OK;
}

static status make_enum(struct making *k, const json_t *flat, const struct where *at)
{
    const json_t *values = json_object_get(flat, "enum");
    const unsigned may = types_in(json_object_get(flat, "type"));
    unsigned types = 0;
    json_t *some = json_array();
    status st = some ? spend(k, json_array_size(values), at) : no_memory();
    for (size_t i = 0; i < json_array_size(values) && st == ST_OK; i++) {
        json_t *value = json_array_get(values, i);
        if (!(type_of(value) & may))
            continue;
        types |= type_of(value);
        if (json_array_append(some, value) != 0)
            st = no_memory();
    }
    if (st == ST_OK)
        st = check_beside(flat, types, at);
    if (st == ST_OK)
        st = spell_values(k, some);
    json_decref(some);
    return st;
}

static status make_type(struct making *k, unsigned type, const json_t *flat, const struct where *at)
{
    switch (type) {
    case TYPE_NULL: grammar_text(k->m, "null", 4); return ST_OK;
    case TYPE_INTEGER: return make_number(k, flat, true, at);
    case TYPE_FRACTION: return make_number(k, flat, json_object_get(flat, "multipleOf") != NULL, at);
    case TYPE_STRING: return make_string(k, flat, at);
    case TYPE_ARRAY: return make_array(k, flat, at);
    default: return make_object(k, flat, at);
    }
}

/* By type; without one, those that the other keywords speak of. */
static status make_typed(struct making *k, const json_t *flat, const struct where *at)
{
    const char *key;
    json_t *v = json_object_get(flat, "type");
    unsigned types = v ? types_in(v) : 0;
    status st = ST_OK;
    struct ways w;
    if (!v)
        json_object_foreach((json_t *)flat, key, v)
            types |= speaks_of(key);
    if ((types & TYPE_NUMBER) == TYPE_NUMBER)
        types &= ~(unsigned)TYPE_INTEGER; /* any number */
    ways_begin(k->m, &w);
    for (unsigned type = 1; type < TYPE_ALL && st == ST_OK; type <<= 1) {
        if (!(types & type))
            continue;
        ways_next(k->m, &w);
        if (type == TYPE_BOOLEAN) {
            grammar_text(k->m, "true", 4);
            ways_next(k->m, &w);
            grammar_text(k->m, "false", 5);
        } else {
            st = make_type(k, type, flat, at);
        }
    }
    ways_end(k->m, &w);
    return st;
}

static status make_flat(struct making *k, json_t *flat, const struct where *at)
{
    status st = spend(k, 1, at);
    if (st != ST_OK || (st = k->m->st) != ST_OK)
        return st;
    k->nested++;
    if (json_object_size(flat) == 0)
        call_part(k, PART_ANY);
    else if (json_object_get(flat, "anyOf"))
        st = make_any_of(k, flat, at);
    else if (json_object_get(flat, "oneOf"))
        st = make_one_of(k, flat, at);
    else if (json_object_get(flat, "enum"))
        st = make_enum(k, flat, at);
    else
        st = make_typed(k, flat, at);
    k->nested--;
    return st;
}

/* The name that a schema refers to if it says nothing else. */
static const char *only_ref(const json_t *schema)
{
    const json_t *ref = json_object_get(schema, "$ref");
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)schema, key, v) {
        if (is_assertion(key) && v != ref)
            return NULL;
    }
    return json_string_value(ref);
}

static status make_value(struct making *k, const json_t *schema, const struct where *at)
{
    json_t *flat;
    status st = k->m->st;
    if (st != ST_OK)
        return st;
    if (only_ref(schema)) {
        st = check_keywords(schema, at);
        return st == ST_OK ? call_rule(k, only_ref(schema), at) : st;
    }
    if ((st = flatten(k, schema, at, &flat)) != ST_OK)
        return st;
    st = make_flat(k, flat, at);
    json_decref(flat);
    return st;
}

/* --- from outside --- */

/* Of what was made from `start` on, which leads nowhere else, as a grammar of its own. */
static status check_ways(const struct grammar_maker *m, uint32_t start)
{
    struct grammar_op *ops = malloc((m->n - start) * sizeof *ops);
    const struct grammar g = {ops, m->n - start};
    if (!ops)
        return no_memory();
    for (uint32_t i = 0; i < g.n_ops; i++) {
        ops[i] = m->ops[start + i];
        const uint8_t kind = ops[i].kind;
        ops[i].a -= kind == GRAMMAR_SPLIT || kind == GRAMMAR_JUMP || kind == GRAMMAR_CALL ? start : 0;
        ops[i].b -= kind == GRAMMAR_SPLIT ? start : 0;
    }
    status st = grammar_check(&g);
    if (st == ST_OK)
        st = grammar_check_ways(&g);
    free(ops);
    return st;
}

static void begin(struct making *k, const json_t *schema, struct grammar_maker *m)
{
    *k = (struct making){.m = m, .root = schema, .value = make_value};
    for (int i = 0; i < PARTS; i++)
        k->parts[i] = NOWHERE;
}

status schema_rule(const json_t *schema, struct grammar_maker *m, uint32_t *rule)
{
    const uint32_t start = grammar_here(m);
    struct making k;
    begin(&k, schema, m);
    status st = m->st;
    if (!json_is_object(schema) && !json_is_boolean(schema))
        st = schema_refuse(NULL, ST_USAGE, "a schema is an object or a boolean");
    if (st == ST_OK)
        st = make_value(&k, schema, NULL);
    grammar_return(m);
    if (st == ST_OK)
        st = make_rules(&k);
    if (st == ST_OK)
        st = finish(&k, start, start);
    if (st == ST_OK)
        st = check_ways(m, start);
    for (size_t i = 0; i < k.n_rules; i++)
        free(k.rules[i].path);
    free(k.rules);
    if (st == ST_OK)
        *rule = start;
    return st;
}

status schema_any_object(struct grammar_maker *m, uint32_t *rule)
{
    const uint32_t start = grammar_here(m);
    struct making k;
    begin(&k, NULL, m);
    call_part(&k, PART_OBJECT);
    grammar_return(m);
    const status st = finish(&k, start, start);
    if (st == ST_OK)
        *rule = start;
    return st;
}

status schema_grammar(const json_t *schema, struct grammar *out)
{
    struct grammar_maker m = {0};
    uint32_t rule;
    status st = schema ? schema_rule(schema, &m, &rule) : schema_any_object(&m, &rule);
    if (st != ST_OK) {
        grammar_drop(&m);
        return st;
    }
    return grammar_made(&m, out);
}
