#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "sampling/schema/making.h"

/* Appends what has room; lines stay lines whatever a client's names hold. */
static size_t put(char *out, size_t n, size_t cap, const char *text)
{
    for (; *text && n + 1 < cap; text++)
        out[n++] = (unsigned char)*text < 0x20 || *text == 0x7F ? '?' : *text;
    out[n] = '\0';
    return n;
}

static size_t put_where(char *out, size_t cap, const struct where *at)
{
    char index[24];
    if (!at)
        return put(out, 0, cap, "#");
    size_t n = put_where(out, cap, at->up);
    if (!at->up && at->key && at->key[0] == '#') /* where a $ref led */
        return put(out, 0, cap, at->key);
    snprintf(index, sizeof index, "%zu", at->index);
    n = put(out, n, cap, "/");
    return put(out, n, cap, at->key ? at->key : index);
}

status schema_refuse(const struct where *at, status st, const char *format, ...)
{
    char place[256], raw[256], why[256];
    va_list args;
    put_where(place, sizeof place, at);
    va_start(args, format);
    vsnprintf(raw, sizeof raw, format, args);
    va_end(args);
    put(why, 0, sizeof why, raw);
    log_error("schema: %s: %s", place, why);
    return st;
}

/* Values within a value, itself too; as deep as jansson reads. */
static size_t values_in(const json_t *v)
{
    size_t n = 1, i;
    const char *key;
    json_t *within;
    json_array_foreach((json_t *)v, i, within)
        n += values_in(within);
    json_object_foreach((json_t *)v, key, within)
        n += values_in(within);
    return n;
}

size_t work_to_compare(const json_t *a, const json_t *b)
{
    const size_t in_a = values_in(a), in_b = values_in(b), n_a = json_array_size(a), n_b = json_array_size(b);
    return 1 + in_a + in_b + (in_a < in_b ? in_a : in_b) * (in_a < in_b ? n_b : n_a);
}

status spend(struct making *k, size_t work, const struct where *at)
{
    if (k->nested > MOST_NESTED)
        return schema_refuse(at, ST_FULL, "more than %d schemas within each other, or one that refers to itself",
                             MOST_NESTED);
    k->work += work < MOST_WORK ? work : MOST_WORK;
    return k->work <= MOST_WORK ? ST_OK : schema_refuse(at, ST_FULL, "the schema is too large");
}
