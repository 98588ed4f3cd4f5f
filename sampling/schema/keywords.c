/* The keywords of JSON Schema, draft 2020-12: what is understood, what form it must have, and what is refused. All
 * others are annotations, which say nothing about what is valid. */
#include <math.h>
#include <string.h>

#include "sampling/schema/making.h"

static bool is_any(const json_t *v) { return v != NULL; }
static bool is_string(const json_t *v) { return json_is_string(v); }
static bool is_schema(const json_t *v) { return json_is_object(v) || json_is_boolean(v); }

static bool is_count(const json_t *v)
{
    return json_is_number(v) && json_number_value(v) >= 0 && json_number_value(v) == floor(json_number_value(v));
}

static bool is_number(const json_t *v) { return json_is_number(v); }
static bool is_array(const json_t *v) { return json_is_array(v); }

static bool are_all(const json_t *v, bool (*fits)(const json_t *))
{
    size_t n = 0;
    while (n < json_array_size(v) && fits(json_array_get(v, n)))
        n++;
    return json_is_array(v) && n == json_array_size(v);
}

static bool are_strings(const json_t *v) { return are_all(v, is_string); }
static bool are_schemas(const json_t *v) { return are_all(v, is_schema) && json_array_size(v) > 0; }

static bool are_named_schemas(const json_t *v)
{
    const char *key;
    json_t *schema;
    json_object_foreach((json_t *)v, key, schema) {
        if (!is_schema(schema))
            return false;
    }
    return json_is_object(v);
}

static const struct {
    const char *name;
    unsigned type;
} types[] = {{"null", TYPE_NULL}, {"boolean", TYPE_BOOLEAN}, {"integer", TYPE_INTEGER}, {"number", TYPE_NUMBER},
             {"string", TYPE_STRING}, {"array", TYPE_ARRAY}, {"object", TYPE_OBJECT}};
enum { N_TYPES = sizeof types / sizeof *types };

static unsigned type_named(const json_t *name)
{
    for (int i = 0; i < N_TYPES; i++)
        if (json_is_string(name) && strcmp(json_string_value(name), types[i].name) == 0)
            return types[i].type;
    return 0;
}

static bool is_type(const json_t *v) { return type_named(v) != 0; }
static bool are_types(const json_t *v) { return is_type(v) || are_all(v, is_type); }

static const struct keyword {
    const char *name;
    bool (*fits)(const json_t *v);
    const char *form;
    unsigned speaks_of; /* types of values; 0: all */
} known[] = {
    {"$ref", is_string, "a string", 0},
    {"type", are_types, "the name of a type, or a list of such", 0},
    {"enum", is_array, "an array", 0},
    {"const", is_any, "a value", 0},
    {"allOf", are_schemas, "a list of schemas", 0},
    {"anyOf", are_schemas, "a list of schemas", 0},
    {"oneOf", are_schemas, "a list of schemas", 0},
    {"properties", are_named_schemas, "an object of schemas", TYPE_OBJECT},
    {"required", are_strings, "a list of names", TYPE_OBJECT},
    {"additionalProperties", is_schema, "a schema", TYPE_OBJECT},
    {"minProperties", is_count, "a count", TYPE_OBJECT},
    {"maxProperties", is_count, "a count", TYPE_OBJECT},
    {"items", is_schema, "a schema (a list of them is prefixItems)", TYPE_ARRAY},
    {"prefixItems", are_schemas, "a list of schemas", TYPE_ARRAY},
    {"minItems", is_count, "a count", TYPE_ARRAY},
    {"maxItems", is_count, "a count", TYPE_ARRAY},
    {"minLength", is_count, "a count", TYPE_STRING},
    {"maxLength", is_count, "a count", TYPE_STRING},
    {"pattern", is_string, "a string", TYPE_STRING},
    {"format", is_string, "a string", TYPE_STRING},
    {"minimum", is_number, "a number", TYPE_NUMBER},
    {"maximum", is_number, "a number", TYPE_NUMBER},
    {"exclusiveMinimum", is_number, "a number", TYPE_NUMBER},
    {"exclusiveMaximum", is_number, "a number", TYPE_NUMBER},
    {"multipleOf", is_number, "a number", TYPE_NUMBER},
};
enum { N_KNOWN = sizeof known / sizeof *known };

/* No grammar is made of these; what they say of everything alike does no harm. */
static const char *const refused[] = {
    "not", "if", "then", "else", "patternProperties", "propertyNames", "dependentRequired", "dependentSchemas",
    "dependencies", "contains", "minContains", "maxContains", "uniqueItems", "unevaluatedProperties",
    "unevaluatedItems", "$dynamicRef", "$recursiveRef"};

static const struct keyword *find(const char *name)
{
    for (int i = 0; i < N_KNOWN; i++)
        if (strcmp(known[i].name, name) == 0)
            return &known[i];
    return NULL;
}

bool is_assertion(const char *keyword) { return find(keyword) != NULL; }

unsigned speaks_of(const char *keyword)
{
    const struct keyword *known_one = find(keyword);
    return known_one ? known_one->speaks_of : 0;
}

static bool says_nothing(const char *keyword, const json_t *v)
{
    if (strcmp(keyword, "uniqueItems") == 0)
        return json_is_false(v);
    if (strcmp(keyword, "not") == 0)
        return json_is_false(v);
    return json_is_true(v) || (json_is_object(v) && json_object_size(v) == 0);
}

static bool is_refused(const json_t *schema, const char *keyword, const json_t *v)
{
    if (strcmp(keyword, "if") == 0) /* alone it says nothing, and without it the two others do not */
        return json_object_get(schema, "then") || json_object_get(schema, "else");
    if (strcmp(keyword, "then") == 0 || strcmp(keyword, "else") == 0)
        return false;
    if (strcmp(keyword, "minContains") == 0 || strcmp(keyword, "maxContains") == 0)
        return false; /* nothing without "contains", which is refused */
    if (strcmp(keyword, "contains") == 0)
        return true;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        if (strcmp(keyword, refused[i]) == 0)
            return !says_nothing(keyword, v);
    return false;
}

status check_keywords(const json_t *schema, const struct where *at)
{
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)schema, key, v) {
        const struct keyword *one = find(key);
        if (one && !one->fits(v))
            return schema_refuse(at, ST_USAGE, "%s must be %s", key, one->form);
        if (is_refused(schema, key, v))
            return schema_refuse(at, ST_USAGE, "%s is not supported", key);
        if (at && strcmp(key, "$id") == 0)
            return schema_refuse(at, ST_USAGE, "$id is not supported but at the root");
        if (strcmp(key, "multipleOf") == 0 && json_number_value(v) != 1)
            return schema_refuse(at, ST_USAGE, "multipleOf is not supported but for 1");
    }
    return ST_OK;
}

unsigned types_in(const json_t *type)
{
    unsigned all = type_named(type);
    for (size_t i = 0; i < json_array_size(type); i++)
        all |= type_named(json_array_get(type, i));
    return type ? all : TYPE_ALL;
}

unsigned type_of(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT: return TYPE_OBJECT;
    case JSON_ARRAY: return TYPE_ARRAY;
    case JSON_STRING: return TYPE_STRING;
    case JSON_INTEGER: return TYPE_INTEGER;
    case JSON_REAL: return json_real_value(value) == floor(json_real_value(value)) ? TYPE_INTEGER : TYPE_FRACTION;
    case JSON_NULL: return TYPE_NULL;
    default: return TYPE_BOOLEAN;
    }
}

json_t *names_of_types(unsigned all)
{
    json_t *names = json_array();
    for (int i = 0; i < N_TYPES && names; i++) {
        const unsigned type = types[i].type;
        const bool whole = type == TYPE_INTEGER && (all & TYPE_NUMBER) == TYPE_NUMBER; /* "number" says it */
        if ((all & type) == type && !whole && json_array_append_new(names, json_string(types[i].name)) != 0) {
            json_decref(names);
            names = NULL;
        }
    }
    return names;
}

uint64_t count_of(const json_t *flat, const char *keyword, uint64_t otherwise)
{
    const json_t *v = json_object_get(flat, keyword);
    if (!v)
        return otherwise;
    return json_number_value(v) < 1e15 ? (uint64_t)json_number_value(v) : (uint64_t)1e15;
}

bool is_required(const json_t *flat, const char *name)
{
    const json_t *all = json_object_get(flat, "required");
    for (size_t i = 0; i < json_array_size(all); i++)
        if (strcmp(json_string_value(json_array_get(all, i)), name) == 0)
            return true;
    return false;
}
