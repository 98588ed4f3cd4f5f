#include "placement/fields.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"

status field_refuse(const char *where, const char *format, ...)
{
    char line[512];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    for (char *c = line; *c; c++) {
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = '?';
    }
    log_error("%s: %s", where, line);
    return ST_FORMAT;
}

const char *field_type_name(const json_t *v)
{
    static const char *const names[] = {"an object", "an array", "a string", "an integer", "a real number",
                                        "true",      "false",    "null"};
    int type = v ? (int)json_typeof(v) : -1;
    return type >= 0 && type < (int)(sizeof names / sizeof *names) ? names[type] : "missing";
}

status field_check_int(const struct place *at, const char *name, const json_t *v, int64_t low, int64_t high,
                       int64_t *out)
{
    if (!json_is_integer(v))
        return field_refuse(at->where, "%s%s is %s, expected an integer", at->prefix, name, field_type_name(v));
    int64_t found = json_integer_value(v);
    if (found < low || found > high) {
        if (low == high)
            return field_refuse(at->where, "%s%s is %" PRId64 ", expected %" PRId64, at->prefix, name, found, low);
        return field_refuse(at->where, "%s%s is %" PRId64 ", expected %" PRId64 " to %" PRId64, at->prefix, name, found,
                            low, high);
    }
    *out = found;
    return ST_OK;
}

status field_get_int(const struct place *at, const json_t *object, const char *key, int64_t low, int64_t high,
                     int64_t *out)
{
    return field_check_int(at, key, json_object_get(object, key), low, high, out);
}

status field_get_optional_int(const struct place *at, const json_t *object, const char *key, int64_t low, int64_t high,
                              int64_t *out)
{
    return json_object_get(object, key) ? field_get_int(at, object, key, low, high, out) : ST_OK;
}

status field_check_keys(const struct place *at, json_t *object, const char *const *keys)
{
    const char *key;
    json_t *value;
    json_object_foreach(object, key, value) {
        const char *const *known = keys;
        while (*known && strcmp(*known, key) != 0)
            known++;
        if (!*known)
            return field_refuse(at->where, "%s%.64s is not a field of a plan", at->prefix, key);
    }
    return ST_OK;
}
