#include "serve/http_exchange.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include "base/clock.h"

enum { MOST_UNREAD = 16 << 20 };

struct http_exchange *http_exchange_new(struct http_connection *c)
{
    struct http_server *s = c->server;
    struct http_exchange *x = calloc(1, sizeof *x);
    if (!x)
        return NULL;
    x->server = s;
    x->connection = c;
    x->next = s->exchanges;
    if (x->next)
        x->next->before = x;
    s->exchanges = x;
    c->exchange = x;
    c->since_s = clock_s();
    return x;
}

void http_exchange_free(struct http_exchange *x)
{
    free(x->path);
    free(x->fields.at);
    free(x->body);
    free(x->answer_fields.at);
    free(x->out);
    free(x);
}

static void free_if_over(struct http_exchange *x)
{
    struct http_server *s = x->server;
    if (x->connection || x->owned)
        return;
    *(x->before ? &x->before->next : &s->exchanges) = x->next;
    if (x->next)
        x->next->before = x->before;
    s->body_bytes -= x->n_body;
    http_exchange_free(x);
}

/* libmicrohttpd asks again: for the answer, or for its next bytes. */
static void wake(struct http_exchange *x)
{
    if (!x->suspended)
        return;
    x->suspended = false;
    MHD_resume_connection(x->connection->handle);
}

static void forget_unread(struct http_exchange *x)
{
    free(x->out);
    x->out = NULL;
    x->out_begin = x->out_end = x->out_cap = 0;
}

void http_exchange_leave(struct http_exchange *x)
{
    x->connection->exchange = NULL;
    x->connection->since_s = clock_s();
    x->connection = NULL;
    x->suspended = false;
    x->gone = true;
    forget_unread(x);
    pthread_cond_broadcast(&x->server->stir);
    free_if_over(x);
}

void http_exchange_cut(struct http_exchange *x)
{
    x->gone = true;
    forget_unread(x);
    if (!x->connection)
        return;
    shutdown(x->connection->socket, SHUT_RDWR); /* it may wait for a client that reads nothing */
    wake(x);
}

bool http_answer_head(struct http_exchange *x, int code, const char *type, uint64_t length,
                      const struct http_field *fields, size_t n_fields)
{
    bool ok = !type || http_fields_add(&x->answer_fields, "Content-Type", type);
    for (size_t i = 0; i < n_fields && ok; i++)
        ok = http_fields_add(&x->answer_fields, fields[i].name, fields[i].value);
    x->status = code;
    x->length = length;
    x->moved_s = clock_s();
    x->begun = ok;
    return ok;
}

bool http_answer_bytes(struct http_exchange *x, const char *bytes, size_t n)
{
    const size_t unread = x->out_end - x->out_begin;
    if (n == 0)
        return true;
    if (unread == 0) {
        x->out_begin = x->out_end = 0;
        x->moved_s = clock_s();
    }
    if (x->length == MHD_SIZE_UNKNOWN && unread + n > MOST_UNREAD)
        return false;
    if (x->out_end + n > x->out_cap && x->out_begin > 0) {
        memmove(x->out, x->out + x->out_begin, unread);
        x->out_begin = 0;
        x->out_end = unread;
    }
    if (x->out_end + n > x->out_cap) {
        const size_t cap = 2 * x->out_cap > unread + n ? 2 * x->out_cap : unread + n;
        char *out = realloc(x->out, cap);
        if (!out)
            return false;
        x->out = out;
        x->out_cap = cap;
    }
    memcpy(x->out + x->out_end, bytes, n);
    x->out_end += n;
    return true;
}

const char *http_method(const struct http_exchange *x)
{
    return x->method;
}

const char *http_path(const struct http_exchange *x)
{
    return x->path;
}

const char *http_body(const struct http_exchange *x, size_t *n)
{
    *n = x->n_body;
    return x->body ? x->body : "";
}

const char *http_header(const struct http_exchange *x, const char *name)
{
    return http_fields_find(&x->fields, name);
}

uint32_t http_key(const struct http_exchange *x)
{
    return x->key;
}

bool http_gone(struct http_exchange *x)
{
    pthread_mutex_lock(&x->server->lock);
    const bool gone = x->gone;
    pthread_mutex_unlock(&x->server->lock);
    return gone;
}

/* What the owner did has worked, or else the client hears no more. */
static void settle(struct http_exchange *x, bool ok)
{
    if (ok)
        wake(x);
    else
        http_exchange_cut(x);
}

static void disown(struct http_exchange *x)
{
    struct http_server *s = x->server;
    x->owned = false;
    free_if_over(x);
    pthread_mutex_unlock(&s->lock);
}

void http_answer(struct http_exchange *x, int code, const char *type, const char *body, size_t n,
                 const struct http_field *fields, size_t n_fields)
{
    pthread_mutex_lock(&x->server->lock);
    settle(x, x->gone || (http_answer_head(x, code, type, n, fields, n_fields) && http_answer_bytes(x, body, n)));
    disown(x);
}

void http_begin(struct http_exchange *x, int code, const char *type, const struct http_field *fields,
                size_t n_fields)
{
    pthread_mutex_lock(&x->server->lock);
    settle(x, x->gone || http_answer_head(x, code, type, MHD_SIZE_UNKNOWN, fields, n_fields));
    pthread_mutex_unlock(&x->server->lock);
}

void http_write(struct http_exchange *x, const char *bytes, size_t n)
{
    pthread_mutex_lock(&x->server->lock);
    settle(x, x->gone || http_answer_bytes(x, bytes, n));
    pthread_mutex_unlock(&x->server->lock);
}

void http_end(struct http_exchange *x)
{
    pthread_mutex_lock(&x->server->lock);
    settle(x, x->begun); /* without a head there is nothing to say */
    disown(x);
}
