/* HTTP as far as an API needs it: libmicrohttpd (its one user is http*.c) in a thread of its own listens, reads whole
 * requests within limits, checks keys, and writes what others answer, at once or piece by piece. What is wrong with a
 * request is answered here, by error_body; only what is no HTTP at all has libmicrohttpd's own 400, or 431.
 *
 * An exchange is a request and its answer. It is the handler's from the call on, until http_end or http_answer; both
 * may come from any thread, once. */
#ifndef HEARTH_SERVE_HTTP_H
#define HEARTH_SERVE_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/status.h"

struct http_server;
struct http_exchange;

/* A request's path and method. Answers come by http_answer or http_begin; may not wait. On the server's thread. */
typedef void http_handler(void *arg, struct http_exchange *x);

/* Paths are whole ("/v1/models"); one with another method is 405 with Allow, HEAD is GET without a body, an unknown one
 * 404. "open": without a key. */
struct http_route {
    const char *method, *path;
    http_handler *handle;
    bool open;
};

/* Strings are borrowed until http_free. */
struct http_options {
    const char *host;              /* "127.0.0.1", "::1", "0.0.0.0" */
    uint16_t port;                 /* 0: the system chooses */
    const char *tls_cert, *tls_key; /* paths of PEM files; NULL: no TLS */
    const char *cors_origin;       /* NULL: off; "*" or an origin */
    const struct http_route *routes; /* [n_routes] borrowed */
    size_t n_routes;
    void *arg;                     /* of all handlers */
    size_t max_body;               /* bytes; more is 413 */
    uint32_t max_connections;      /* requests on more are 503 */
    /* A request is whole within so long of its first line (else 408), and begins within so long of the one before; a
     * client that takes nothing of an answer for so long is gone. */
    uint32_t idle_s;
    /* A body in the form that `path` wants, which may be anything; malloc'ed, *n bytes; NULL: none. May call nothing of
     * HTTP. */
    char *(*error_body)(void *arg, const char *path, int status, const char *message, size_t *n);
};

/* ST_USAGE (logged): the address cannot be listened on, or the files of TLS are none; ST_NOMEM, ST_INTERNAL. */
status http_open(const struct http_options *o, struct http_server **out);
uint16_t http_port(const struct http_server *s);
/* Keys that are accepted, a line each (blank ones and those that begin with '#' are none); NULL: nobody needs one.
 * Replaces those before; any thread. Compared in constant time, from "Authorization: Bearer" or "x-api-key". ST_NOMEM,
 * ST_USAGE (one is longer than 255 bytes). */
status http_set_keys(struct http_server *s, const char *lines);
/* No new connections; new requests on old ones are 503. Any thread, until http_close. */
void http_drain(struct http_server *s);
/* Closes all; answers that are ended have a second to be sent. Exchanges that nobody has ended yet are gone (http_gone)
 * and may still be ended, until http_free. The thread that opened. */
void http_close(struct http_server *s);
void http_free(struct http_server *s); /* NULL is fine */

const char *http_method(const struct http_exchange *x);
const char *http_path(const struct http_exchange *x);
/* [*n] NUL-terminated besides; until the exchange ends. */
const char *http_body(const struct http_exchange *x, size_t *n);
/* NULL: the request has no such header. */
const char *http_header(const struct http_exchange *x, const char *name);
/* Number of the key, from 0; 0 where nobody needs one. */
uint32_t http_key(const struct http_exchange *x);
/* The client has left, or the server was closed: nobody reads what is written. Any thread. */
bool http_gone(struct http_exchange *x);

/* Name and value of a header of the answer; the strings are copied. */
struct http_field {
    const char *name, *value;
};

/* The whole answer, body [n] copied; ends the exchange. If memory is out, the connection is closed. */
void http_answer(struct http_exchange *x, int status, const char *type, const char *body, size_t n,
                 const struct http_field *fields, size_t n_fields);
/* An answer in pieces: its head; its pieces, copied; its end. What a slow client has not read waits in memory: beyond
 * 16 MiB it counts as gone. */
void http_begin(struct http_exchange *x, int status, const char *type, const struct http_field *fields,
                size_t n_fields);
void http_write(struct http_exchange *x, const char *bytes, size_t n);
void http_end(struct http_exchange *x);

#endif
