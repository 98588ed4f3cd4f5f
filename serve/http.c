#include "serve/http.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "base/log.h"
#include "base/whole_file.h"
#include "serve/http_exchange.h"
#include "serve/http_listen.h"
#include "serve/http_request.h"
#include "serve/http_watch.h"

enum {
    BUFFER = 64 << 10, /* bytes of a connection that libmicrohttpd takes for what it reads and writes */
    SURPLUS = 64,      /* connections beyond those that may be, whose requests are refused */
    LAST_BYTES_S = 1   /* for clients to take the end of their answers, when the server closes */
};

/* libmicrohttpd complains of clients too, which is nobody's matter here. */
static void __attribute__((format(printf, 2, 0))) hear(void *arg, const char *format, va_list values)
{
    struct http_server *s = arg;
    pthread_mutex_lock(&s->lock);
    vsnprintf(s->said, sizeof s->said, format, values);
    s->said[strcspn(s->said, "\n")] = '\0';
    pthread_mutex_unlock(&s->lock);
}

/* A file of TLS, as text. To be freed, also where that is no PEM. */
static status read_pem(const char *path, char **out)
{
    struct whole_file f;
    status st = whole_file_map(path, &f);
    if (st != ST_OK)
        return ST_USAGE;
    char *text = *out = calloc(1, f.n + 1);
    if (text)
        memcpy(text, f.bytes, f.n);
    if (!text) {
        log_error("%s: no memory for %zu bytes", path, f.n);
        st = ST_NOMEM;
    } else if (!strstr(text, "-----BEGIN ")) {
        log_error("%s: expected PEM, found no line that begins with -----BEGIN", path);
        st = ST_USAGE;
    }
    whole_file_unmap(&f);
    return st;
}

/* The certificate, and the key, which does not stay in memory that others get. */
struct tls {
    char *cert, *key;
};

static void tls_free(struct tls *t)
{
    free(t->cert);
    if (t->key)
        explicit_bzero(t->key, strlen(t->key));
    free(t->key);
}

static status tls_read(const struct http_options *o, struct tls *t)
{
    status st = o->tls_cert ? read_pem(o->tls_cert, &t->cert) : ST_OK;
    return st == ST_OK && o->tls_cert ? read_pem(o->tls_key, &t->key) : st;
}

/* libmicrohttpd has `socket` from then on. */
static status start_daemon(struct http_server *s, int socket, const struct tls *t)
{
    const struct MHD_OptionItem secure[] = {
        {MHD_OPTION_HTTPS_MEM_CERT, 0, t->cert},
        {MHD_OPTION_HTTPS_MEM_KEY, 0, t->key},
        {MHD_OPTION_HTTPS_PRIORITIES, 0, (char[]){"NORMAL:-VERS-TLS1.0:-VERS-TLS1.1"}},
        {MHD_OPTION_END, 0, NULL},
    };
    const unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG;
    s->daemon = MHD_start_daemon(flags | (t->cert ? MHD_USE_TLS : 0), 0, NULL, NULL, http_request_step, s,
                                 MHD_OPTION_EXTERNAL_LOGGER, hear, s,
                                 MHD_OPTION_LISTEN_SOCKET, socket,
                                 MHD_OPTION_CONNECTION_LIMIT, (unsigned)(s->o.max_connections + SURPLUS),
                                 MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)BUFFER,
                                 MHD_OPTION_STRICT_FOR_CLIENT, 1,
                                 MHD_OPTION_URI_LOG_CALLBACK, http_request_begin, s,
                                 MHD_OPTION_NOTIFY_COMPLETED, http_request_end, s,
                                 MHD_OPTION_NOTIFY_CONNECTION, http_connection_notify, s,
                                 MHD_OPTION_ARRAY, secure + (t->cert ? 0 : 3), MHD_OPTION_END);
    if (s->daemon)
        return ST_OK;
    if (t->cert)
        log_error("no HTTPS with the certificate %s and the key %s: expected those that belong together "
                  "(libmicrohttpd: %s)", s->o.tls_cert, s->o.tls_key, s->said);
    else
        log_error("libmicrohttpd does not start: %s", s->said);
    return t->cert ? ST_USAGE : ST_INTERNAL;
}

/* With all signals blocked: they are for threads that know what to do with them. */
static status start_threads(struct http_server *s, int socket, const struct tls *t)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    status st = start_daemon(s, socket, t);
    if (st != ST_OK)
        close(socket);
    const int failed = st == ST_OK ? pthread_create(&s->watcher, NULL, http_watch, s) : 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!failed)
        return st;
    log_error("cannot start a thread: %s", strerror(failed));
    MHD_stop_daemon(s->daemon);
    s->daemon = NULL;
    return ST_NOMEM;
}

static struct http_server *server_new(const struct http_options *o)
{
    struct http_server *s = calloc(1, sizeof *s);
    pthread_condattr_t monotonic;
    if (!s) {
        log_error("no memory for a server");
        return NULL;
    }
    s->o = *o;
    pthread_mutex_init(&s->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&s->stir, &monotonic);
    pthread_condattr_destroy(&monotonic);
    return s;
}

status http_open(const struct http_options *o, struct http_server **out)
{
    struct http_server *s = server_new(o);
    struct tls t = {0};
    int socket = -1;
    status st = s ? tls_read(o, &t) : ST_NOMEM;
    if (st == ST_OK)
        st = http_listen(o->host, o->port, &socket, &s->port);
    if (st == ST_OK)
        st = start_threads(s, socket, &t);
    tls_free(&t);
    if (st == ST_OK)
        *out = s;
    else
        http_free(s);
    return st;
}

uint16_t http_port(const struct http_server *s)
{
    return s->port;
}

status http_set_keys(struct http_server *s, const char *lines)
{
    struct http_keys *keys = NULL;
    const status st = lines ? http_keys_read(lines, &keys) : ST_OK;
    if (st != ST_OK)
        return st;
    pthread_mutex_lock(&s->lock);
    struct http_keys *before = s->keys;
    s->keys = keys;
    pthread_mutex_unlock(&s->lock);
    free(before);
    return ST_OK;
}

void http_drain(struct http_server *s)
{
    pthread_mutex_lock(&s->lock);
    const bool first = !s->draining && s->daemon;
    s->draining = true;
    pthread_mutex_unlock(&s->lock);
    if (!first)
        return;
    const int socket = MHD_quiesce_daemon(s->daemon);
    if (socket >= 0)
        close(socket);
}

/* Whether an answer is there that is not sent yet. */
static bool is_sending(const struct http_server *s)
{
    const struct http_exchange *x = s->exchanges;
    while (x && (x->owned || !x->begun || x->gone))
        x = x->next;
    return x != NULL;
}

static void wait_for_last_bytes(struct http_server *s)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += LAST_BYTES_S;
    while (is_sending(s) && pthread_cond_timedwait(&s->stir, &s->lock, &until) == 0)
        ;
}

void http_close(struct http_server *s)
{
    if (!s->daemon)
        return;
    http_drain(s);
    pthread_mutex_lock(&s->lock);
    s->closing = true; /* from now on nobody suspends, as libmicrohttpd must not stop before all are awake */
    for (struct http_exchange *x = s->exchanges; x; x = x->next)
        if (x->owned)
            http_exchange_cut(x);
    wait_for_last_bytes(s);
    for (struct http_exchange *x = s->exchanges; x; x = x->next)
        http_exchange_cut(x);
    pthread_cond_broadcast(&s->stir);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->watcher, NULL);
    MHD_stop_daemon(s->daemon);
    s->daemon = NULL;
}

void http_free(struct http_server *s)
{
    if (!s)
        return;
    http_close(s);
    while (s->exchanges) { /* nobody has ended them, and nobody may any more */
        struct http_exchange *x = s->exchanges;
        s->exchanges = x->next;
        http_exchange_free(x);
    }
    free(s->keys);
    pthread_cond_destroy(&s->stir);
    pthread_mutex_destroy(&s->lock);
    free(s);
}
