/* Which handler a path and a method have. */
#ifndef HEARTH_SERVE_HTTP_ROUTES_H
#define HEARTH_SERVE_HTTP_ROUTES_H

#include "serve/http.h"

/* NULL: none. HEAD has GET's where it has no own. */
const struct http_route *http_routes_find(const struct http_options *o, const char *method, const char *path);
bool http_routes_know(const struct http_options *o, const char *path);
/* Whether the path is there without a key. */
bool http_routes_open(const struct http_options *o, const char *path);
/* The methods of a path: "GET, HEAD". */
void http_routes_allowed(const struct http_options *o, const char *path, char *out, size_t n);

#endif
