#include "model/gguf_cursor.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

static uint64_t left(const struct cursor *c) { return (uint64_t)(c->r.end - c->r.at); }

status cursor_bad(const struct cursor *c, const uint8_t *at, status code, const char *what, const char *format, ...)
{
    char detail[256];
    va_list args;
    va_start(args, format);
    vsnprintf(detail, sizeof detail, format, args);
    va_end(args);
    log_error("%s: %s%s at byte %" PRIu64 ": %s", c->path, what, c->item, (uint64_t)(at - c->start), detail);
    return code;
}

void cursor_enter(struct cursor *c, const char *kind, const char *name)
{
    int n = snprintf(c->item, sizeof c->item, " of %s ", kind);
    gguf_printable(name, strlen(name), c->item + n, sizeof c->item - (size_t)n);
}

void cursor_leave(struct cursor *c) { c->item[0] = 0; }

status cursor_need(const struct cursor *c, uint64_t n, const char *what)
{
    if (left(c) < n)
        return cursor_bad(c, c->r.at, ST_FORMAT, what, "expected %" PRIu64 " bytes, found %" PRIu64
                          " to the end of the file", n, left(c));
    return ST_OK;
}

status cursor_u32(struct cursor *c, const char *what, uint32_t *out)
{
    status s = cursor_need(c, 4, what);
    if (s == ST_OK)
        *out = read_u32(&c->r);
    return s;
}

status cursor_u64(struct cursor *c, const char *what, uint64_t *out)
{
    status s = cursor_need(c, 8, what);
    if (s == ST_OK)
        *out = read_u64(&c->r);
    return s;
}

status cursor_count(struct cursor *c, const char *what, uint64_t min_bytes, uint64_t max, uint64_t *out)
{
    const uint8_t *at = c->r.at;
    uint64_t n;
    status s = cursor_u64(c, what, &n);
    if (s != ST_OK)
        return s;
    uint64_t room = left(c) / min_bytes;
    if (n > room)
        return cursor_bad(c, at, ST_FORMAT, what, "expected at most %" PRIu64 " (the bytes left), found %" PRIu64, room,
                          n);
    if (n > max)
        return cursor_bad(c, at, ST_FORMAT, what, "expected at most %" PRIu64 ", found %" PRIu64, max, n);
    *out = n;
    return ST_OK;
}

status cursor_skip_string(struct cursor *c, const char *what)
{
    uint64_t n;
    status s = cursor_u64(c, what, &n);
    if (s == ST_OK)
        s = cursor_need(c, n, what);
    if (s == ST_OK)
        read_bytes(&c->r, n);
    return s;
}

status cursor_no_memory(const struct cursor *c, uint64_t bytes)
{
    log_error("%s: no memory for %" PRIu64 " bytes of its index", c->path, bytes);
    return ST_NOMEM;
}

status cursor_name(struct cursor *c, const char *what, char **out)
{
    const uint8_t *at = c->r.at;
    uint64_t n;
    status s = cursor_u64(c, what, &n);
    if (s != ST_OK)
        return s;
    if (n < 1 || n >= GGUF_MAX_NAME)
        return cursor_bad(c, at, ST_FORMAT, what, "expected a length of 1 to %d, found %" PRIu64, GGUF_MAX_NAME - 1, n);
    if ((s = cursor_need(c, n, what)) != ST_OK)
        return s;
    const uint8_t *bytes = read_bytes(&c->r, n);
    const uint8_t *nul = memchr(bytes, 0, n);
    if (nul)
        return cursor_bad(c, nul, ST_FORMAT, what, "expected text, found a NUL byte");
    char *name = malloc(n + 1);
    if (!name)
        return cursor_no_memory(c, n + 1);
    memcpy(name, bytes, n);
    name[n] = 0;
    *out = name;
    return ST_OK;
}
