/* The head of a request: what its target, its fields and its framing say. */
#ifndef HEARTH_SERVE_HTTP_HEAD_H
#define HEARTH_SERVE_HTTP_HEAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Names and values, one behind the other: "name\0value\0". */
struct http_fields {
    char *at; /* malloc'ed */
    size_t n, cap;
};

/* Copies. False: no memory. */
bool http_fields_add(struct http_fields *f, const char *name, const char *value);
/* The value of the first of that name, letters' case aside; NULL: there is none. */
const char *http_fields_find(const struct http_fields *f, const char *name);
/* Goes through all: *name NULL before the first. False behind the last. */
bool http_fields_next(const struct http_fields *f, const char **name, const char **value);

/* Whether a path is one ("/...", nothing but visible ASCII): paths of an API need no escapes. */
bool http_path_fine(const char *path);

/* Whether all names are of the signs that names have, and no value has a control character but for tabs. Of others a
 * reader on the way could make other fields than this one. */
bool http_fields_fine(const struct http_fields *f);

enum { HTTP_CHUNKED = -1 };
/* How long the body is: its bytes, 0 without one, HTTP_CHUNKED. `wants`: the method comes with one. Returns 0, or the
 * status to refuse it with: 400 where two readers could disagree on where the request ends, 411. */
int http_body_length(const struct http_fields *f, bool wants, int64_t *length);
/* Whether the client waits for a word before it sends the body. */
bool http_expects_continue(const struct http_fields *f);
/* The key that was shown, by "Authorization: Bearer" or "x-api-key"; "" without. */
const char *http_shown_key(const struct http_fields *f);

#endif
