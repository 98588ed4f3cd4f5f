#include "serve/json_text.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Room for n bytes more. */
static bool reserve(struct json_text *t, size_t n)
{
    if (t->failed || n > SIZE_MAX / 4 - t->n) {
        t->failed = true;
        return false;
    }
    if (t->n + n <= t->cap)
        return true;
    size_t cap = t->cap ? t->cap : 256;
    while (cap < t->n + n)
        cap *= 2;
    char *at = realloc(t->at, cap);
    if (!at) {
        t->failed = true;
        return false;
    }
    t->at = at;
    t->cap = cap;
    return true;
}

void json_raw(struct json_text *t, const char *bytes, size_t n)
{
    if (n == 0 || !reserve(t, n))
        return;
    memcpy(t->at + t->n, bytes, n);
    t->n += n;
}

void json_put(struct json_text *t, const char *text)
{
    json_raw(t, text, strlen(text));
}

void json_print(struct json_text *t, const char *format, ...)
{
    char small[256];
    va_list ap;
    va_start(ap, format);
    const int n = vsnprintf(small, sizeof small, format, ap);
    va_end(ap);
    if (n >= 0 && (size_t)n < sizeof small) {
        json_raw(t, small, (size_t)n);
        return;
    }
    if (n < 0 || !reserve(t, (size_t)n + 1)) {
        t->failed = true;
        return;
    }
    va_start(ap, format);
    vsnprintf(t->at + t->n, (size_t)n + 1, format, ap);
    va_end(ap);
    t->n += (size_t)n;
}

/* Bytes of the character that the n bytes begin with; 0 if they begin with none. */
static size_t character(const unsigned char *at, size_t n)
{
    const unsigned c = at[0];
    const size_t length = c < 0x80 ? 1 : c < 0xC2 ? 0 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : c < 0xF5 ? 4 : 0;
    if (length == 0 || length > n)
        return 0;
    for (size_t i = 1; i < length; i++)
        if ((at[i] & 0xC0) != 0x80)
            return 0;
    /* Longer than need be, a surrogate, or beyond the last. */
    if ((c == 0xE0 && at[1] < 0xA0) || (c == 0xED && at[1] > 0x9F) || (c == 0xF0 && at[1] < 0x90) ||
        (c == 0xF4 && at[1] > 0x8F))
        return 0;
    return length;
}

static void put_escape(struct json_text *t, unsigned char c)
{
    switch (c) {
    case '"':
        json_raw(t, "\\\"", 2);
        break;
    case '\\':
        json_raw(t, "\\\\", 2);
        break;
    case '\n':
        json_raw(t, "\\n", 2);
        break;
    case '\t':
        json_raw(t, "\\t", 2);
        break;
    case '\r':
        json_raw(t, "\\r", 2);
        break;
    default:
        json_print(t, "\\u%04x", c);
    }
}

void json_inside(struct json_text *t, const char *bytes, size_t n)
{
    const unsigned char *at = (const unsigned char *)bytes;
    size_t from = 0, i = 0; /* what lies between goes as it is */
    while (i < n) {
        const size_t length = character(at + i, n - i);
        if (length && at[i] >= 0x20 && at[i] != '"' && at[i] != '\\' && at[i] != 0x7F) {
            i += length;
            continue;
        }
        json_raw(t, bytes + from, i - from);
        if (length)
            put_escape(t, at[i]);
        else
            json_put(t, "\uFFFD");
        from = ++i;
    }
    json_raw(t, bytes + from, n - from);
}

void json_string_of(struct json_text *t, const char *bytes, size_t n)
{
    json_raw(t, "\"", 1);
    json_inside(t, bytes, n);
    json_raw(t, "\"", 1);
}

void json_number(struct json_text *t, double value, int digits)
{
    if (isfinite(value))
        json_print(t, "%.*f", digits, value);
    else
        json_put(t, "null");
}

void json_text_clear(struct json_text *t)
{
    t->n = 0;
    t->failed = false;
}

void json_text_free(struct json_text *t)
{
    free(t->at);
    *t = (struct json_text){0};
}
