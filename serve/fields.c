#include "serve/fields.h"

#include <stdarg.h>
#include <stdio.h>

static void set_param(struct refusal *r, const char *param)
{
    snprintf(r->param, sizeof r->param, "%s", param ? param : "");
}

bool refuse(struct refusal *r, const char *code, const char *param, const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    vsnprintf(r->message, sizeof r->message, format, ap);
    va_end(ap);
    set_param(r, param);
    r->status = 400;
    r->code = code;
    return false;
}

bool refuse_status(struct refusal *r, status st, const char *param, const char *line)
{
    switch (st) {
    case ST_USAGE:
    case ST_FULL:
    case ST_FORMAT:
    case ST_UNSUPPORTED:
    case ST_BUDGET:
        return refuse(r, "invalid_value", param, "%s", *line ? line : status_name(st));
    default:
        refuse(r, NULL, NULL, "the server could not do it: %s", *line ? line : status_name(st));
        r->status = 500;
        return false;
    }
}

/* What a client calls the type of a value. */
static const char *type_of(const json_t *v)
{
    static const char *const names[] = {
        [JSON_OBJECT] = "an object", [JSON_ARRAY] = "an array",       [JSON_STRING] = "a string",
        [JSON_INTEGER] = "an integer", [JSON_REAL] = "a number",      [JSON_TRUE] = "true",
        [JSON_FALSE] = "false",      [JSON_NULL] = "null",
    };
    return names[json_typeof(v)];
}

static bool wrong_type(struct refusal *r, const char *name, const char *expected, const json_t *found)
{
    return refuse(r, "invalid_type", name, "'%s': expected %s, found %s", name, expected, type_of(found));
}

/* NULL: there is no such field. */
static const json_t *field(const json_t *root, const char *name)
{
    const json_t *v = json_object_get(root, name);
    return json_is_null(v) ? NULL : v;
}

bool field_number(const json_t *root, const char *name, double least, double most, float *out, struct refusal *r)
{
    const json_t *v = field(root, name);
    if (!v)
        return true;
    if (!json_is_number(v))
        return wrong_type(r, name, "a number", v);
    const double value = json_number_value(v);
    if (!(value >= least && value <= most))
        return refuse(r, "invalid_value", name, "'%s': expected %g to %g, found %g", name, least, most, value);
    *out = (float)value;
    return true;
}

bool field_whole(const json_t *v, int64_t *out)
{
    const double real = json_number_value(v);
    if (!json_is_integer(v) && !(json_is_real(v) && real > -9e15 && real < 9e15 && real == (double)(int64_t)real))
        return false;
    *out = json_is_integer(v) ? json_integer_value(v) : (int64_t)real;
    return true;
}

bool field_integer(const json_t *root, const char *name, int64_t least, int64_t most, int64_t *out, struct refusal *r)
{
    const json_t *v = field(root, name);
    if (!v)
        return true;
    int64_t value;
    if (!field_whole(v, &value))
        return wrong_type(r, name, "an integer", v);
    if (value < least || value > most)
        return refuse(r, "invalid_value", name, "'%s': expected %lld to %lld, found %lld", name, (long long)least,
                      (long long)most, (long long)value);
    *out = value;
    return true;
}

bool field_flag(const json_t *root, const char *name, bool *out, struct refusal *r)
{
    const json_t *v = field(root, name);
    if (v && !json_is_boolean(v))
        return wrong_type(r, name, "true or false", v);
    if (v)
        *out = json_is_true(v);
    return true;
}

bool field_string(const json_t *root, const char *name, const char **out, struct refusal *r)
{
    const json_t *v = field(root, name);
    if (v && !json_is_string(v))
        return wrong_type(r, name, "a string", v);
    if (v)
        *out = json_string_value(v);
    return true;
}

bool field_object(const json_t *root, const char *name, const json_t **out, struct refusal *r)
{
    const json_t *v = field(root, name);
    if (v && !json_is_object(v))
        return wrong_type(r, name, "an object", v);
    if (v)
        *out = v;
    return true;
}

bool field_array(const json_t *root, const char *name, const json_t **out, struct refusal *r)
{
    const json_t *v = field(root, name);
    if (v && !json_is_array(v))
        return wrong_type(r, name, "an array", v);
    if (v)
        *out = v;
    return true;
}
