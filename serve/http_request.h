/* Requests as libmicrohttpd brings them, call by call: checked, read, handed to their handler, answered. */
#ifndef HEARTH_SERVE_HTTP_REQUEST_H
#define HEARTH_SERVE_HTTP_REQUEST_H

#include "serve/http_exchange.h"

/* The first: its target, whole and as it came. `arg` is the server. Returns the exchange, NULL without memory. */
void *http_request_begin(void *arg, const char *target, struct MHD_Connection *handle);
/* Its head, parts of its body, its end, and once more whenever the exchange was resumed. */
enum MHD_Result http_request_step(void *arg, struct MHD_Connection *handle, const char *path, const char *method,
                                  const char *version, const char *bytes, size_t *n, void **exchange);
/* It is answered, or cannot be. */
void http_request_end(void *arg, struct MHD_Connection *handle, void **exchange, enum MHD_RequestTerminationCode why);

/* An answer that says what is wrong, with the lock. */
void http_refuse(struct http_exchange *x, int code, const char *message, const struct http_field *fields,
                 size_t n_fields);

#endif
