#include "serve/stops.h"

#include <stdlib.h>
#include <string.h>
#include "base/log.h"

status stops_init(struct stops *s, const char *const *list, size_t n)
{
    *s = (struct stops){.list = calloc(n + 1, sizeof *s->list)};
    for (size_t i = 0; s->list && i < n; i++) {
        s->list[i] = strdup(list[i]);
        if (!s->list[i])
            break;
        s->n++;
    }
    if (s->list && s->n == n)
        return ST_OK;
    log_error("no memory for %zu stop strings", n);
    return ST_NOMEM;
}

/* The longest stop string that the text [n] ends with, or NULL. */
static const char *stop_at(const struct stops *s, const char *at, size_t n)
{
    const char *found = NULL;
    for (size_t i = 0; i < s->n; i++) {
        const size_t length = strlen(s->list[i]);
        if (length <= n && memcmp(at + n - length, s->list[i], length) == 0 &&
            (!found || length > strlen(found)))
            found = s->list[i];
    }
    return found;
}

/* Whether a text [n] may become a stop string. */
static bool begins_stop(const struct stops *s, const char *at, size_t n)
{
    for (size_t i = 0; i < s->n; i++)
        if (n < strlen(s->list[i]) && memcmp(at, s->list[i], n) == 0)
            return true;
    return false;
}

static status give(struct stops *s, size_t n, stops_fn *tell, void *arg)
{
    status st = n ? tell(arg, s->held.at, n) : ST_OK;
    text_drop(&s->held, n);
    return st;
}

status stops_take(struct stops *s, const char *at, size_t n, stops_fn *tell, void *arg)
{
    const size_t before = s->held.n;
    if (s->came || n == 0)
        return ST_OK;
    if (s->n == 0)
        return tell(arg, at, n);
    status st = text_append(&s->held, at, n);
    if (st != ST_OK)
        return st;
    for (size_t end = before + 1; end <= s->held.n; end++) {
        s->came = stop_at(s, s->held.at, end);
        if (s->came)
            return give(s, end - strlen(s->came), tell, arg);
    }
    size_t keep = 0;
    while (keep < s->held.n && !begins_stop(s, s->held.at + keep, s->held.n - keep))
        keep++;
    return give(s, keep, tell, arg);
}

status stops_end(struct stops *s, stops_fn *tell, void *arg)
{
    return s->came ? ST_OK : give(s, s->held.n, tell, arg);
}

void stops_free(struct stops *s)
{
    for (size_t i = 0; i < s->n; i++)
        free(s->list[i]);
    free(s->list);
    free(s->held.at);
    *s = (struct stops){0};
}
