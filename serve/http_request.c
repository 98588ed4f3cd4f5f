#include "serve/http_request.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "serve/http_routes.h"

enum {
    MOST_PATH = 8 << 10,          /* bytes */
    MOST_LINE = 64 << 10,         /* that libmicrohttpd takes */
    MOST_FIELDS = 16 << 10,       /* bytes of a request's header */
    MOST_DISCARDED = 64 << 20,    /* of a body that nobody wants: clients read an answer when they have sent all */
    MOST_BODIES = 16,             /* times max_body, of all requests together */
    PIECE = 32 << 10              /* bytes that libmicrohttpd fetches at once of an answer whose length it knows */
};

void *http_request_begin(void *arg, const char *target, struct MHD_Connection *handle)
{
    struct http_server *s = arg;
    struct http_connection *c =
        MHD_get_connection_info(handle, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
    if (!c)
        return NULL;
    pthread_mutex_lock(&s->lock);
    struct http_exchange *x = http_exchange_new(c);
    if (x) {
        x->path = strndup(target, strcspn(target, "?"));
        x->target_end = (uintptr_t)(target + strlen(target) + 1);
    }
    pthread_mutex_unlock(&s->lock);
    return x;
}

void http_request_end(void *arg, struct MHD_Connection *handle, void **exchange, enum MHD_RequestTerminationCode why)
{
    struct http_server *s = arg;
    struct http_exchange *x = *exchange;
    (void)handle;
    (void)why;
    *exchange = NULL;
    if (!x)
        return;
    pthread_mutex_lock(&s->lock);
    http_exchange_leave(x);
    pthread_mutex_unlock(&s->lock);
}

void http_refuse(struct http_exchange *x, int code, const char *message, const struct http_field *fields,
                 size_t n_fields)
{
    const struct http_options *o = &x->server->o;
    size_t n = 0;
    char *body = o->error_body(o->arg, x->path, code, message, &n);
    if (!http_answer_head(x, code, "application/json", body ? n : 0, fields, n_fields) ||
        (body && !http_answer_bytes(x, body, n)))
        http_exchange_cut(x);
    free(body);
}

/* A browser asks before it lets a page of another origin send a request. */
static void allow_origin(struct http_exchange *x)
{
    const char *wanted = http_fields_find(&x->fields, "Access-Control-Request-Headers");
    const struct http_field fields[] = {
        {"Access-Control-Allow-Methods", "GET, POST, DELETE"},
        {"Access-Control-Allow-Headers", wanted ? wanted : "authorization, content-type, x-api-key"},
        {"Access-Control-Max-Age", "86400"},
    };
    if (!http_answer_head(x, 204, NULL, 0, fields, sizeof fields / sizeof *fields))
        http_exchange_cut(x);
}

static void refuse_method(struct http_exchange *x)
{
    char allowed[128], message[160];
    http_routes_allowed(&x->server->o, x->path, allowed, sizeof allowed);
    snprintf(message, sizeof message, "this path takes %s", allowed);
    http_refuse(x, 405, message, (struct http_field[]){{"Allow", allowed}}, 1);
}

/* Whether the key is right, or none is needed. */
static bool let_in(struct http_exchange *x)
{
    const struct http_server *s = x->server;
    if (!s->keys || http_routes_open(&s->o, x->path))
        return true;
    const int64_t key = http_keys_find(s->keys, http_shown_key(&x->fields));
    x->key = key < 0 ? 0 : (uint32_t)key;
    return key >= 0;
}

/* What the server has no room or no time for. */
static const char *too_busy(const struct http_exchange *x)
{
    const struct http_server *s = x->server;
    if (s->draining || s->closing)
        return "the server is stopping";
    return x->connection->surplus ? "too many connections" : NULL;
}

/* Whether the client wrote a NUL into the target, where libmicrohttpd takes it to end: then the version does not stand
 * right behind it, as it does in the line that came. */
static bool has_nul(const struct http_exchange *x, const char *version)
{
    const uintptr_t at = (uintptr_t)version;
    return at > x->target_end && at - x->target_end < MOST_LINE;
}

/* Refuses what can be refused by the head alone. */
static void judge(struct http_exchange *x, const char *version)
{
    const struct http_server *s = x->server;
    const char *busy = too_busy(x), *method = x->method;
    const bool wants = strcmp(method, "POST") == 0 || strcmp(method, "PUT") == 0 || strcmp(method, "PATCH") == 0;
    int64_t length;
    const int framing = http_body_length(&x->fields, wants, &length);
    const bool fine = http_fields_fine(&x->fields);
    x->last |= framing != 0 || busy || !fine;
    if (strncmp(version, "HTTP/1.", 7) != 0)
        http_refuse(x, 400, "the request is not one of HTTP/1", NULL, 0);
    else if (strlen(x->path) > MOST_PATH)
        http_refuse(x, 414, "the path is too long", NULL, 0);
    else if (!http_path_fine(x->path) || has_nul(x, version))
        http_refuse(x, 400, "the request's target is not a path", NULL, 0);
    else if (x->fields.n > MOST_FIELDS)
        http_refuse(x, 431, "the request's header is too large", NULL, 0);
    else if (!fine)
        http_refuse(x, 400, "the request's header has a name or a value that is none", NULL, 0);
    else if (framing)
        http_refuse(x, framing, framing == 411 ? "the length of the body is missing" :
                    "Content-Length and Transfer-Encoding leave it open how long the body is", NULL, 0);
    else if (busy)
        http_refuse(x, 503, busy, (struct http_field[]){{"Retry-After", "5"}}, 1);
    else if (s->o.cors_origin && strcmp(method, "OPTIONS") == 0 && http_routes_know(&s->o, x->path))
        allow_origin(x);
    else if (!let_in(x))
        http_refuse(x, 401, "the key is missing or wrong", (struct http_field[]){{"WWW-Authenticate", "Bearer"}}, 1);
    else if (!http_routes_know(&s->o, x->path))
        http_refuse(x, 404, "there is nothing at this path", NULL, 0);
    else if (!(x->route = http_routes_find(&s->o, method, x->path)))
        refuse_method(x);
    else if (length > 0 && (uint64_t)length > s->o.max_body)
        http_refuse(x, 413, "the body is too large", NULL, 0);
}

static enum MHD_Result copy_field(void *arg, enum MHD_ValueKind kind, const char *name, const char *value)
{
    struct http_exchange *x = arg;
    (void)kind;
    x->gone |= !http_fields_add(&x->fields, name, value ? value : "");
    return x->gone ? MHD_NO : MHD_YES;
}

static enum MHD_Result send_answer(struct http_exchange *x, struct MHD_Connection *handle);

/* Refused, by a client that would send more than is worth waiting for, or that waits for a word itself. */
static bool refused_at_once(const struct http_exchange *x)
{
    int64_t length;
    if (!x->begun)
        return false;
    return http_body_length(&x->fields, false, &length) || length > MOST_DISCARDED ||
           (length && http_expects_continue(&x->fields));
}

static enum MHD_Result take_head(struct http_exchange *x, struct MHD_Connection *handle, const char *method,
                                 const char *version)
{
    snprintf(x->method, sizeof x->method, "%s", method);
    x->stage = HTTP_BODY;
    pthread_mutex_lock(&x->server->lock);
    MHD_get_connection_values(handle, MHD_HEADER_KIND, copy_field, x);
    if (x->path && !x->gone)
        judge(x, version);
    const bool failed = x->gone || !x->path, at_once = refused_at_once(x);
    x->whole = at_once;
    x->last |= at_once;
    pthread_mutex_unlock(&x->server->lock);
    if (failed)
        return MHD_NO;
    return at_once ? send_answer(x, handle) : MHD_YES;
}

/* With the lock. False: no memory. */
static bool keep(struct http_exchange *x, const char *bytes, size_t n)
{
    if (x->n_body + n >= x->body_cap) {
        const size_t cap = 2 * (x->n_body + n) + 1024;
        char *body = realloc(x->body, cap);
        if (!body)
            return false;
        x->body = body;
        x->body_cap = cap;
    }
    memcpy(x->body + x->n_body, bytes, n);
    x->n_body += n;
    x->body[x->n_body] = '\0';
    x->server->body_bytes += n;
    return true;
}

static void drop_body(struct http_exchange *x)
{
    x->server->body_bytes -= x->n_body;
    x->discarded = x->n_body;
    free(x->body);
    x->body = NULL;
    x->n_body = x->body_cap = 0;
}

static enum MHD_Result take_body(struct http_exchange *x, const char *bytes, size_t n)
{
    struct http_server *s = x->server;
    pthread_mutex_lock(&s->lock);
    if (!x->begun && x->n_body + n > s->o.max_body) {
        drop_body(x);
        http_refuse(x, 413, "the body is too large", NULL, 0);
    } else if (!x->begun && s->body_bytes + n > MOST_BODIES * s->o.max_body) {
        drop_body(x);
        http_refuse(x, 503, "too many large requests at once", (struct http_field[]){{"Retry-After", "5"}}, 1);
    }
    bool ok = !x->gone;
    if (x->begun)
        ok = ok && (x->discarded += n) <= MOST_DISCARDED;
    else
        ok = ok && keep(x, bytes, n);
    pthread_mutex_unlock(&s->lock);
    return ok ? MHD_YES : MHD_NO;
}

/* libmicrohttpd wants bytes of an answer. Where there are none yet it is to ask again when there are. */
static ssize_t next_bytes(void *arg, uint64_t at, char *out, size_t most)
{
    struct http_exchange *x = arg;
    struct http_server *s = x->server;
    (void)at;
    pthread_mutex_lock(&s->lock);
    const size_t unread = x->out_end - x->out_begin;
    ssize_t n = (ssize_t)(unread < most ? unread : most);
    if (x->gone) {
        n = MHD_CONTENT_READER_END_WITH_ERROR;
    } else if (n > 0) {
        memcpy(out, x->out + x->out_begin, (size_t)n);
        x->out_begin += (size_t)n;
        x->moved_s = clock_s();
    } else if (!x->owned) {
        n = MHD_CONTENT_READER_END_OF_STREAM;
    } else if (s->closing) {
        n = MHD_CONTENT_READER_END_WITH_ERROR;
    } else {
        x->suspended = true;
        MHD_suspend_connection(x->connection->handle);
    }
    pthread_mutex_unlock(&s->lock);
    return n;
}

static bool add_fields(const struct http_exchange *x, struct MHD_Response *r)
{
    const char *origin = x->server->o.cors_origin;
    bool ok = true;
    for (const char *name = NULL, *value; ok && http_fields_next(&x->answer_fields, &name, &value);)
        ok = MHD_add_response_header(r, name, value) == MHD_YES;
    if (origin) {
        ok = ok && MHD_add_response_header(r, "Access-Control-Allow-Origin", origin) == MHD_YES;
        if (strcmp(origin, "*") != 0)
            ok = ok && MHD_add_response_header(r, "Vary", "Origin") == MHD_YES;
    }
    if (x->last)
        ok = ok && MHD_add_response_header(r, "Connection", "close") == MHD_YES;
    return ok;
}

/* The head of the answer is known and nobody changes it any more: no lock is needed. */
static enum MHD_Result send_answer(struct http_exchange *x, struct MHD_Connection *handle)
{
    const size_t piece = x->length < PIECE ? x->length + 1 : PIECE;
    struct MHD_Response *r = MHD_create_response_from_callback(x->length, piece, next_bytes, x, NULL);
    if (!r)
        return MHD_NO;
    x->stage = HTTP_ANSWER;
    /* To HEAD libmicrohttpd writes the end of chunks of which there are none. */
    x->last |= x->length == MHD_SIZE_UNKNOWN && strcmp(x->method, "HEAD") == 0;
    enum MHD_Result queued = MHD_NO;
    if (add_fields(x, r))
        queued = MHD_queue_response(handle, (unsigned)x->status, r);
    MHD_destroy_response(r);
    return queued;
}

/* The answer, if there is one already. */
static enum MHD_Result answer_or_wait(struct http_exchange *x, struct MHD_Connection *handle)
{
    struct http_server *s = x->server;
    pthread_mutex_lock(&s->lock);
    const bool begun = x->begun, failed = x->gone || (!begun && s->closing);
    if (!failed && !begun) {
        x->suspended = true;
        MHD_suspend_connection(handle);
    }
    pthread_mutex_unlock(&s->lock);
    if (failed)
        return MHD_NO;
    return begun ? send_answer(x, handle) : MHD_YES;
}

static enum MHD_Result take_end(struct http_exchange *x, struct MHD_Connection *handle)
{
    struct http_server *s = x->server;
    pthread_mutex_lock(&s->lock);
    x->stage = HTTP_ANSWER;
    x->whole = true;
    x->owned = !x->begun && !x->gone;
    const bool asks = x->owned;
    pthread_mutex_unlock(&s->lock);
    if (asks)
        x->route->handle(s->o.arg, x);
    return answer_or_wait(x, handle);
}

enum MHD_Result http_request_step(void *arg, struct MHD_Connection *handle, const char *path, const char *method,
                                  const char *version, const char *bytes, size_t *n, void **exchange)
{
    struct http_exchange *x = *exchange;
    (void)arg;
    (void)path; /* is decoded, and ends at a NUL that somebody wrote as %00 */
    if (!x)
        return MHD_NO;
    if (x->stage == HTTP_HEAD)
        return take_head(x, handle, method, version);
    if (x->stage == HTTP_ANSWER)
        return answer_or_wait(x, handle);
    if (*n == 0)
        return take_end(x, handle);
    const enum MHD_Result taken = take_body(x, bytes, *n);
    *n = 0;
    return taken;
}
