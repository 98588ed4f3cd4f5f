#include "serve/http_keys.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include "base/log.h"

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

/* The next key, NULL behind the last: *n bytes. *lines goes on behind its line. */
static const char *next_key(const char **lines, size_t *n)
{
    while (**lines) {
        const char *at = *lines, *end = at + strcspn(at, "\n");
        *lines = end + (*end == '\n');
        while (at < end && is_blank(*at))
            at++;
        while (end > at && is_blank(end[-1]))
            end--;
        *n = (size_t)(end - at);
        if (*n > 0 && *at != '#')
            return at;
    }
    return NULL;
}

size_t http_keys_count(const char *lines)
{
    size_t n, n_keys = 0;
    while (next_key(&lines, &n))
        n_keys++;
    return n_keys;
}

status http_keys_read(const char *lines, struct http_keys **out)
{
    size_t n, n_keys = 0;
    for (const char *rest = lines; next_key(&rest, &n); n_keys++)
        if (n >= HTTP_KEY_BYTES) {
            log_error("key %zu has %zu bytes, the longest that is taken %d", n_keys + 1, n, HTTP_KEY_BYTES - 1);
            return ST_USAGE;
        }
    struct http_keys *k = calloc(1, sizeof *k + n_keys * HTTP_KEY_BYTES);
    if (!k) {
        log_error("no memory for %zu keys", n_keys);
        return ST_NOMEM;
    }
    for (const char *rest = lines, *at; (at = next_key(&rest, &n)) != NULL;)
        memcpy(k->at[k->n++], at, n);
    *out = k;
    return ST_OK;
}

/* 1 or 0. Not memcmp, which ends at the first byte that differs and so tells how much was right. */
static uint32_t same(const char *a, const char *b)
{
    volatile uint32_t differs = 0;
    for (size_t i = 0; i < HTTP_KEY_BYTES; i++)
        differs |= (uint8_t)(a[i] ^ b[i]);
    return (differs - 1) >> 31;
}

int64_t http_keys_find(const struct http_keys *k, const char *shown)
{
    char padded[HTTP_KEY_BYTES] = {0};
    const size_t n = strnlen(shown, HTTP_KEY_BYTES);
    if (n < HTTP_KEY_BYTES) /* else it stays empty, as no key is */
        memcpy(padded, shown, n);
    uint32_t found = 0;
    for (uint32_t i = 0; i < k->n; i++) {
        const uint32_t it_is = same(k->at[i], padded);
        found = found * !it_is + (i + 1) * it_is;
    }
    return (int64_t)found - 1;
}
