/* How one value is written, in one way but for the spaces: what models write. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "sampling/schema/making.h"

bool is_plain(uint32_t c)
{
    return c >= 0x20 && c != '"' && c != '\\';
}

const char *escape_of(uint32_t c)
{
    switch (c) {
    case '"': return "\\\"";
    case '\\': return "\\\\";
    case '\b': return "\\b";
    case '\f': return "\\f";
    case '\n': return "\\n";
    case '\r': return "\\r";
    case '\t': return "\\t";
    default: return "";
    }
}

/* The string in quotes, malloc'ed, NUL behind. */
static char *spelled_string(const char *text, size_t n)
{
    char *out = malloc(6 * n + 3), *o = out;
    if (!out)
        return NULL;
    *o++ = '"';
    for (const char *end = text + n; text < end; text++) {
        const unsigned char c = (unsigned char)*text;
        const char *escape = escape_of(c);
        if (is_plain(c))
            *o++ = *text;
        else if (*escape)
            o += sprintf(o, "%s", escape);
        else
            o += sprintf(o, "\\u%04x", c);
    }
    strcpy(o, "\"");
    return out;
}

/* With no more digits than it takes, but a point: as most programs write it. */
static char *spelled_real(double value)
{
    char out[40];
    if (fabs(value) < 1e15 && value == floor(value)) {
        snprintf(out, sizeof out, "%.1f", value);
        return strdup(out);
    }
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(out, sizeof out, "%.*g", digits, value);
        if (strtod(out, NULL) == value)
            break;
    }
    return strdup(out);
}

/* Of a value without members, malloc'ed; NULL: no memory (logged). */
static char *spelled(const json_t *value)
{
    char number[32], *out;
    switch (json_typeof(value)) {
    case JSON_STRING: out = spelled_string(json_string_value(value), json_string_length(value)); break;
    case JSON_REAL: out = spelled_real(json_real_value(value)); break;
    case JSON_INTEGER:
        snprintf(number, sizeof number, "%lld", (long long)json_integer_value(value));
        out = strdup(number);
        break;
    default: out = strdup(json_is_true(value) ? "true" : json_is_false(value) ? "false" : "null"); break;
    }
    if (!out)
        log_error("schema: no memory for a value");
    return out;
}

static status spell_text(struct grammar_maker *m, const json_t *value)
{
    char *text = spelled(value);
    if (!text)
        return ST_NOMEM;
    grammar_text(m, text, strlen(text));
    free(text);
    return ST_OK;
}

void spell_string(struct grammar_maker *m, const char *text, size_t n)
{
    grammar_byte(m, '"', '"');
    for (size_t i = 0; i < n && m->st == ST_OK; i++) {
        const unsigned char c = (unsigned char)text[i];
        char escape[8];
        snprintf(escape, sizeof escape, "\\u%04x", c);
        if (is_plain(c))
            grammar_byte(m, c, c);
        else if (*escape_of(c))
            grammar_text(m, escape_of(c), 2);
        else
            grammar_text(m, escape, 6);
    }
    grammar_byte(m, '"', '"');
}

static status spell_members(struct making *k, const json_t *value);

static status spell(struct making *k, const json_t *value)
{
    if (k->m->st != ST_OK)
        return k->m->st;
    return json_is_object(value) || json_is_array(value) ? spell_members(k, value) : spell_text(k->m, value);
}

/* An object or an array. */
static status spell_members(struct making *k, const json_t *value)
{
    struct grammar_maker *m = k->m;
    const char *key;
    json_t *member;
    size_t i;
    status st = spend(k, 1 + json_array_size(value) + json_object_size(value), NULL);
    k->nested++;
    grammar_byte(m, json_is_array(value) ? '[' : '{', json_is_array(value) ? '[' : '{');
    for (i = 0; i < json_array_size(value) && st == ST_OK; i++) {
        if (i > 0)
            comma(m);
        st = spell(k, json_array_get(value, i));
    }
    i = 0;
    json_object_foreach((json_t *)value, key, member) {
        if (st != ST_OK)
            break;
        if (i++ > 0)
            comma(m);
        spell_string(m, key, strlen(key));
        grammar_byte(m, ':', ':');
        maybe_space(m);
        st = spell(k, member);
    }
    grammar_byte(m, json_is_array(value) ? ']' : '}', json_is_array(value) ? ']' : '}');
    k->nested--;
    return st;
}

/* --- one of many --- */

/* One of texts [n], sorted and alike up to `at`, from there on: as a tree, so that a text's way through it is one. */
static void make_tree(struct grammar_maker *m, char *const *texts, size_t n, size_t at)
{
    struct ways w;
    while (texts[0][at] && texts[0][at] == texts[n - 1][at]) {
        grammar_byte(m, (uint8_t)texts[0][at], (uint8_t)texts[0][at]);
        at++;
    }
    if (m->st != ST_OK || (!texts[0][at] && !texts[n - 1][at]))
        return;
    ways_begin(m, &w);
    for (size_t i = 0, next; i < n; i = next) {
        for (next = i + 1; next < n && texts[next][at] == texts[i][at]; next++)
            ;
        ways_next(m, &w);
        if (texts[i][at])
            make_tree(m, texts + i, next - i, at);
    }
    ways_end(m, &w);
}

static int compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

status spell_values(struct making *k, const json_t *values)
{
    const size_t size = json_array_size(values);
    size_t n = 0;
    status st = ST_OK;
    struct ways w;
    char **texts = calloc(size + 1, sizeof *texts);
    if (!texts) {
        log_error("schema: no memory for %zu values", size);
        return ST_NOMEM;
    }
    ways_begin(k->m, &w);
    for (size_t i = 0; i < size && st == ST_OK; i++) {
        const json_t *value = json_array_get(values, i);
        if (json_is_object(value) || json_is_array(value)) {
            ways_next(k->m, &w);
            st = spell(k, value);
        } else if (!(texts[n++] = spelled(value))) {
            st = ST_NOMEM;
        }
    }
    if (st == ST_OK && n > 0) {
        qsort(texts, n, sizeof *texts, compare);
        ways_next(k->m, &w);
        make_tree(k->m, texts, n, 0);
    }
    ways_end(k->m, &w);
    for (size_t i = 0; i < n; i++)
        free(texts[i]);
    free(texts);
    return st;
}
