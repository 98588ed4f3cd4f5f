#include "serve/http_routes.h"

#include <stdio.h>
#include <string.h>

/* The next route of a path behind `r`; NULL: the first, and none. */
static const struct http_route *next(const struct http_options *o, const char *path, const struct http_route *r)
{
    for (r = r ? r + 1 : o->routes; r < o->routes + o->n_routes; r++)
        if (strcmp(r->path, path) == 0)
            return r;
    return NULL;
}

static const struct http_route *find(const struct http_options *o, const char *method, const char *path)
{
    const struct http_route *r = NULL;
    while ((r = next(o, path, r)) && strcmp(r->method, method) != 0)
        ;
    return r;
}

const struct http_route *http_routes_find(const struct http_options *o, const char *method, const char *path)
{
    const struct http_route *r = find(o, method, path);
    return r || strcmp(method, "HEAD") != 0 ? r : find(o, "GET", path);
}

bool http_routes_know(const struct http_options *o, const char *path)
{
    return next(o, path, NULL) != NULL;
}

bool http_routes_open(const struct http_options *o, const char *path)
{
    const struct http_route *r = NULL;
    while ((r = next(o, path, r)) && !r->open)
        ;
    return r != NULL;
}

void http_routes_allowed(const struct http_options *o, const char *path, char *out, size_t n)
{
    const struct http_route *r = NULL;
    size_t at = 0;
    *out = '\0';
    while ((r = next(o, path, r)) && at < n)
        at += (size_t)snprintf(out + at, n - at, "%s%s%s", at ? ", " : "", r->method,
                               strcmp(r->method, "GET") == 0 ? ", HEAD" : "");
}
