#include "placement/fields.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

enum { DEVICE_MAX_DIGITS = 3 };

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
            return field_refuse(at->where, "%s%.64s is not a known field", at->prefix, key);
    }
    return ST_OK;
}

status field_check_positive(const struct place *at, const char *name, const json_t *v, double high, double *out)
{
    if (!json_is_number(v))
        return field_refuse(at->where, "%s%s is %s, expected a number", at->prefix, name, field_type_name(v));
    double found = json_number_value(v);
    if (!(found > 0 && found <= high))
        return field_refuse(at->where, "%s%s is %g, expected more than 0 and at most %g", at->prefix, name, found,
                            high);
    *out = found;
    return ST_OK;
}

status field_get_positive(const struct place *at, const json_t *object, const char *key, double high, double *out)
{
    return field_check_positive(at, key, json_object_get(object, key), high, out);
}

/* Of characters from `least` on. */
static status get_string(const struct place *at, const json_t *object, const char *key, unsigned char least, char *out,
                         size_t n)
{
    const json_t *v = json_object_get(object, key);
    const char *text = json_string_value(v);
    if (!text)
        return field_refuse(at->where, "%s%s is %s, expected a string", at->prefix, key, field_type_name(v));
    size_t length = strlen(text);
    bool plain = length > 0 && length < n;
    for (const char *c = text; *c && plain; c++)
        plain = (unsigned char)*c >= least && *c != 0x7f && *c != '"' && *c != '\\';
    if (!plain)
        return field_refuse(at->where, "%s%s is no name of 1 to %zu characters: '%.64s'", at->prefix, key, n - 1, text);
    memcpy(out, text, length + 1);
    return ST_OK;
}

status field_get_name(const struct place *at, const json_t *object, const char *key, char *out, size_t n)
{
    return get_string(at, object, key, ' ' + 1, out, n);
}

status field_get_text(const struct place *at, const json_t *object, const char *key, char *out, size_t n)
{
    return get_string(at, object, key, ' ', out, n);
}

/* Whether it is a number without zeros in front. */
static bool is_number(const char *text)
{
    const size_t n = strlen(text);
    return n > 0 && n <= DEVICE_MAX_DIGITS && strspn(text, "0123456789") == n && (text[0] != '0' || n == 1);
}

/* Kinds of devices that some program knows; the first CPU goes without its number. */
static bool is_device(const char *text)
{
    if (strncmp(text, "cuda:", 5) == 0)
        return is_number(text + 5);
    return strcmp(text, "cpu") == 0 || (strncmp(text, "cpu:", 4) == 0 && is_number(text + 4) && text[4] != '0');
}

status field_get_device(const struct place *at, const json_t *object, char out[PLAN_DEVICE_BYTES])
{
    const json_t *v = json_object_get(object, "device");
    const char *text = json_string_value(v);
    if (!text)
        return field_refuse(at->where, "%sdevice is %s, expected a string", at->prefix, field_type_name(v));
    if (!is_device(text))
        return field_refuse(at->where, "%sdevice is '%.64s', which is no device: expected \"cpu\", or \"cpu:N\" or "
                            "\"cuda:N\" with a number, of CPUs from 1 on", at->prefix, text);
    snprintf(out, PLAN_DEVICE_BYTES, "%s", text);
    return ST_OK;
}

status field_parse(const char *text, size_t n, const char *where, const char *what, json_t **root)
{
    json_error_t e;
    size_t mark = n >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0 ? 3 : 0; /* what some editors put in front of UTF-8 */
    *root = json_loadb(text + mark, n - mark, JSON_REJECT_DUPLICATES, &e);
    if (*root)
        return ST_OK;
    if (!e.text[0]) { /* how jansson says that memory ran out: every other error has a text */
        log_error("%s: no memory to read %s", where, what);
        return ST_NOMEM;
    }
    return field_refuse(where, "line %d, column %d: %s", e.line, e.column, e.text);
}

/* Reads an open file to its end; pipes have no size to ask for. */
static status read_all(FILE *file, const char *path, const char *what, size_t most, char **text, size_t *n)
{
    size_t used = 0, cap = 0;
    char *buffer = NULL;
    status st = ST_OK;
    for (;;) {
        if (used == cap) {
            char *larger = realloc(buffer, cap = cap ? 2 * cap : 4096);
            if (!larger) {
                log_error("%s: no memory to read %s", path, what);
                st = ST_NOMEM;
                goto err_free;
            }
            buffer = larger;
        }
        size_t got = fread(buffer + used, 1, cap - used, file);
        used += got;
        if (used > most) {
            st = field_refuse(path, "%s has more than %zu bytes", what, most);
            goto err_free;
        }
        if (got == 0)
            break;
    }
    if (ferror(file)) {
        log_error("%s: cannot read: %s", path, strerror(errno));
        st = ST_IO;
        goto err_free;
    }
    *text = buffer;
    *n = used;
    return ST_OK;
err_free:
    free(buffer);
    return st;
}

status field_load(const char *path, const char *what, size_t most, char **text, size_t *n)
{
    FILE *file = fopen(path, "rb");
    if (!file) {
        log_error("%s: cannot open %s: %s", path, what, strerror(errno));
        return ST_IO;
    }
    status st = read_all(file, path, what, most, text, n);
    fclose(file);
    return st;
}
