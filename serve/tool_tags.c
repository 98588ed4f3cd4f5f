#include "serve/tool_tags.h"

#include <stdlib.h>
#include <string.h>
#include "model/thoughts.h"

const json_t *tools_parameters(const json_t *tools, const char *name, size_t n)
{
    json_t *tool;
    size_t i;
    json_array_foreach(tools, i, tool) {
        const json_t *function = json_object_get(tool, "function");
        const char *own = json_string_value(json_object_get(function, "name"));
        if (own && strlen(own) == n && memcmp(own, name, n) == 0)
            return json_object_get(function, "parameters");
    }
    return NULL;
}

bool tags_is_string(const json_t *parameters, const char *key, bool *known)
{
    const json_t *schema = json_object_get(json_object_get(parameters, "properties"), key);
    const json_t *type = json_object_get(schema, "type"), *words = json_object_get(schema, "enum");
    *known = type || words;
    return type ? json_is_string(type) && strcmp(json_string_value(type), "string") == 0
                : json_is_string(json_array_get(words, 0));
}

/* Appends a JSON value, which it takes, written out. */
static status put_json(struct text *json, json_t *v)
{
    char *text = v ? json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
    status st = text ? text_append(json, text, strlen(text)) : ST_NOMEM;
    free(text);
    json_decref(v);
    return st;
}

/* The value of an argument: a string, or the JSON that it is, as it came: 0.1 written anew has 17 digits. What is no
 * JSON is a string after all. */
static status put_value(const json_t *parameters, const char *key, const char *at, size_t n, struct text *json)
{
    bool known;
    json_t *v = tags_is_string(parameters, key, &known) ? NULL : json_loadb(at, n, JSON_DECODE_ANY, NULL);
    if (!v)
        return put_json(json, json_stringn(at, n));
    json_decref(v);
    return text_append(json, at, n);
}

static status put_member(const struct tool_tags *t, const json_t *parameters, bool first, const char *key, size_t n_key,
                         const char *value, size_t n, struct text *json)
{
    if (t->lines && n && value[0] == '\n') {
        value++;
        n--;
    }
    n -= t->lines && n && value[n - 1] == '\n';
    char *name = strndup(key, n_key);
    status st = name ? text_append(json, first ? "{" : ",", 1) : ST_NOMEM;
    if (st == ST_OK)
        st = put_json(json, json_string(name));
    if (st == ST_OK)
        st = text_append(json, ":", 1);
    if (st == ST_OK)
        st = put_value(parameters, name, value, n, json);
    free(name);
    return st;
}

/* Whether n bytes begin with a tag; *part: they may yet. */
static bool begins(const char *at, size_t n, const char *tag, bool *part)
{
    const size_t length = strlen(tag);
    *part |= n < length && memcmp(at, tag, n) == 0;
    return n >= length && memcmp(at, tag, length) == 0;
}

enum tags_found tags_take(const struct tool_tags *t, const json_t *parameters, size_t *n_members, struct text *held,
                          struct text *json, status *st)
{
    const size_t skip = thoughts_spaces(held->at, held->n), n = held->n - skip;
    const char *at = held->at + skip, *end = held->at + held->n;
    bool part = false;
    *st = ST_OK;
    if (begins(at, n, t->end, &part)) {
        *st = text_append(json, *n_members ? "}" : "{}", *n_members ? 1 : 2);
        text_drop(held, skip + strlen(t->end));
        return TAGS_END;
    }
    if (!begins(at, n, t->key, &part))
        return part || n == 0 ? TAGS_MORE : TAGS_BROKEN;
    const char *key = at + strlen(t->key), *key_end = memmem(key, (size_t)(end - key), t->key_end, strlen(t->key_end));
    if (!key_end)
        return TAGS_MORE;
    const char *value = key_end + strlen(t->key_end), *tag = value + thoughts_spaces(value, (size_t)(end - value));
    if (*t->value && begins(tag, (size_t)(end - tag), t->value, &part))
        value = tag + strlen(t->value);
    const char *value_end = memmem(value, (size_t)(end - value), t->value_end, strlen(t->value_end));
    if (!value_end)
        return TAGS_MORE;
    *st = put_member(t, parameters, *n_members == 0, key, (size_t)(key_end - key), value,
                     (size_t)(value_end - value), json);
    ++*n_members;
    text_drop(held, (size_t)(value_end - held->at) + strlen(t->value_end));
    return TAGS_MEMBER;
}
