#include "cli/event_stream.h"

#include <string.h>
#include "base/log.h"

/* Fields but "data", and comments, which keep a connection alive, say nothing. */
static bool take_line(struct event_stream *s)
{
    static const char field[] = "data:";
    struct text *l = &s->line;
    l->n -= l->n > 0 && l->at[l->n - 1] == '\r';
    if (l->n < sizeof field - 1 || memcmp(l->at, field, sizeof field - 1) != 0)
        return true;
    l->at[l->n] = '\0';
    const char *data = l->at + sizeof field - 1;
    return s->tell(s->arg, data + (*data == ' '));
}

status event_stream_take(struct event_stream *s, const char *bytes, size_t n)
{
    while (n > 0) {
        const char *end = memchr(bytes, '\n', n);
        const size_t part = end ? (size_t)(end - bytes) : n;
        if (s->line.n + part > EVENT_MOST) {
            log_error("the server sends a line of more than %d bytes", EVENT_MOST);
            return ST_FORMAT;
        }
        const status st = text_append(&s->line, bytes, part);
        if (st != ST_OK)
            return st;
        if (!end)
            return ST_OK;
        const bool more = take_line(s);
        s->line.n = 0;
        if (!more)
            return ST_CANCELLED;
        bytes += part + 1;
        n -= part + 1;
    }
    return ST_OK;
}
