#include "model/keys.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/log.h"

enum { KEY_SIZE = 96 };

static const char *full_key(const struct keys *k, const char *name, char out[KEY_SIZE])
{
    snprintf(out, KEY_SIZE, "%s.%s", k->arch, name);
    return out;
}

status bad_key(const struct keys *k, status code, const char *name, const char *format, ...)
{
    char key[KEY_SIZE], detail[256];
    va_list args;
    va_start(args, format);
    vsnprintf(detail, sizeof detail, format, args);
    va_end(args);
    log_error("%s: key %s: %s", gguf_path(k->g), full_key(k, name, key), detail);
    return code;
}

/* A value that a file gives once, or once a layer; the latter is accepted when all are equal. */
static status read_integer(const struct keys *k, const char *name, const char *key, int64_t *out)
{
    enum gguf_type type;
    uint64_t n;
    if (gguf_get_i64(k->g, key, out))
        return ST_OK;
    if (!gguf_get_array(k->g, key, &type, &n) || n == 0)
        return bad_key(k, ST_FORMAT, name, "expected an integer, found another value");
    int64_t first, other;
    if (!gguf_array_i64(k->g, key, 0, &first))
        return bad_key(k, ST_FORMAT, name, "expected integers, found an array of another type");
    for (uint64_t i = 1; i < n; i++)
        if (gguf_array_i64(k->g, key, i, &other) && other != first)
            return bad_key(k, ST_UNSUPPORTED, name, "expected the same value for every layer, found %" PRId64
                           " and %" PRId64, first, other);
    *out = first;
    return ST_OK;
}

status optional_int(const struct keys *k, const char *name, int64_t min, int64_t max, int64_t *out)
{
    char key[KEY_SIZE];
    int64_t v;
    if (!gguf_has_key(k->g, full_key(k, name, key)))
        return ST_OK;
    status s = read_integer(k, name, key, &v);
    if (s != ST_OK)
        return s;
    if (v < min || v > max)
        return bad_key(k, ST_FORMAT, name, "expected %" PRId64 " to %" PRId64 ", found %" PRId64, min, max, v);
    *out = v;
    return ST_OK;
}

status required_int(const struct keys *k, const char *name, int64_t min, int64_t max, int64_t *out)
{
    char key[KEY_SIZE];
    if (!gguf_has_key(k->g, full_key(k, name, key)))
        return bad_key(k, ST_FORMAT, name, "expected an integer, found no such key");
    return optional_int(k, name, min, max, out);
}

status optional_float(const struct keys *k, const char *name, double min, double max, double *out)
{
    char key[KEY_SIZE];
    double v;
    if (!gguf_has_key(k->g, full_key(k, name, key)))
        return ST_OK;
    if (!gguf_get_f64(k->g, key, &v))
        return bad_key(k, ST_FORMAT, name, "expected a float, found another value");
    if (!(v >= min && v <= max)) /* NaN fails too */
        return bad_key(k, ST_FORMAT, name, "expected %g to %g, found %g", min, max, v);
    *out = v;
    return ST_OK;
}

status optional_string(const struct keys *k, const char *name, struct gguf_string *out)
{
    char key[KEY_SIZE];
    if (!gguf_has_key(k->g, full_key(k, name, key)) || gguf_get_string(k->g, key, out))
        return ST_OK;
    return bad_key(k, ST_FORMAT, name, "expected a string, found another value");
}

bool has_key(const struct keys *k, const char *name)
{
    char key[KEY_SIZE];
    return gguf_has_key(k->g, full_key(k, name, key));
}

status optional_bool(const struct keys *k, const char *name, bool *out)
{
    char key[KEY_SIZE];
    if (!gguf_has_key(k->g, full_key(k, name, key)) || gguf_get_bool(k->g, key, out))
        return ST_OK;
    return bad_key(k, ST_FORMAT, name, "expected true or false, found another value");
}

bool array_length(const struct keys *k, const char *name, uint64_t *n)
{
    char key[KEY_SIZE];
    enum gguf_type type;
    return gguf_get_array(k->g, full_key(k, name, key), &type, n);
}

bool array_truth(const struct keys *k, const char *name, uint64_t i, bool *out)
{
    char key[KEY_SIZE];
    return gguf_array_bool(k->g, full_key(k, name, key), i, out);
}
