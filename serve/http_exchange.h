/* What the files of HTTP share: a server, its connections, and exchanges.
 *
 * An exchange lives until libmicrohttpd is through with it (connection is NULL then) and nobody owns it any more. The
 * server's lock guards all of it but the request, which libmicrohttpd's thread writes until it is whole and nobody from
 * then on. Callbacks of libmicrohttpd take the lock; it may take its own inside, never the other way round. */
#ifndef HEARTH_SERVE_HTTP_EXCHANGE_H
#define HEARTH_SERVE_HTTP_EXCHANGE_H

#include <microhttpd.h>
#include <pthread.h>
#include "serve/http.h"
#include "serve/http_head.h"
#include "serve/http_keys.h"

struct http_server {
    struct http_options o;
    uint16_t port;
    struct MHD_Daemon *daemon;      /* NULL: closed */
    pthread_t watcher;
    pthread_mutex_t lock;           /* of what follows, and of connections and exchanges */
    pthread_cond_t stir;            /* a connection is there, an exchange is over, or the server stops */
    struct http_keys *keys;         /* NULL: nobody needs one */
    struct http_connection *connections;
    struct http_exchange *exchanges;
    uint32_t n_connections;
    size_t body_bytes;              /* of all exchanges */
    bool draining, closing;
    char said[256];                 /* libmicrohttpd's last complaint */
};

struct http_connection {
    struct http_server *server;
    struct MHD_Connection *handle;
    int socket;
    bool surplus;                   /* one more than there may be: its requests are refused */
    struct http_exchange *exchange; /* NULL: the next request has not begun */
    double since_s;                 /* when that began to be so, or when the request began */
    struct http_connection *next, *before;
};

enum http_stage { HTTP_HEAD, HTTP_BODY, HTTP_ANSWER };

struct http_exchange {
    struct http_server *server;
    struct http_connection *connection;
    struct http_exchange *next, *before;
    /* The request. */
    enum http_stage stage;          /* what libmicrohttpd's next call brings */
    char *path;                     /* malloc'ed */
    uintptr_t target_end;           /* the address right behind the target's NUL */
    char method[16];
    struct http_fields fields;
    const struct http_route *route;
    uint32_t key;
    char *body;                     /* [n_body] and a NUL; NULL: none */
    size_t n_body, body_cap;
    uint64_t discarded;             /* bytes of a body that nobody wants */
    /* The answer. */
    bool whole;                     /* the request is: no longer a matter of time */
    bool owned;                     /* a handler's, who has not ended it */
    bool begun;                     /* what follows is known */
    bool gone;                      /* nobody reads what is written */
    bool suspended;                 /* libmicrohttpd waits for http_wake */
    bool last;                      /* the connection is closed behind it */
    int status;
    struct http_fields answer_fields;
    uint64_t length;                /* MHD_SIZE_UNKNOWN: in pieces */
    char *out;                      /* bytes [out_begin, out_end) are still to be sent */
    size_t out_begin, out_end, out_cap;
    double moved_s;                 /* when the client last took something, or waited for it */
};

/* A request begins. NULL: no memory. With the lock, as all of these: */
struct http_exchange *http_exchange_new(struct http_connection *c);
/* libmicrohttpd is through with it. */
void http_exchange_leave(struct http_exchange *x);
/* Nobody reads what is written, and the connection ends. */
void http_exchange_cut(struct http_exchange *x);
/* The head of an answer. False: no memory. */
bool http_answer_head(struct http_exchange *x, int code, const char *type, uint64_t length,
                      const struct http_field *fields, size_t n_fields);
/* Bytes of an answer. False: no memory, or more than a client may leave unread. */
bool http_answer_bytes(struct http_exchange *x, const char *bytes, size_t n);
/* Without the lock: frees an exchange whatever its state, which is out of all lists. */
void http_exchange_free(struct http_exchange *x);

#endif
