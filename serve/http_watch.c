#include "serve/http_watch.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include "base/clock.h"

static const double LOOK_S = 0.1;

static void begin(struct http_server *s, struct MHD_Connection *handle, void **connection)
{
    const int on = 1, fd = MHD_get_connection_info(handle, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
    struct http_connection *c = calloc(1, sizeof *c);
    *connection = c;
    if (!c) {
        shutdown(fd, SHUT_RDWR);
        return;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* a token leaves at once */
    *c = (struct http_connection){.server = s, .handle = handle, .socket = fd, .since_s = clock_s()};
    pthread_mutex_lock(&s->lock);
    c->surplus = ++s->n_connections > s->o.max_connections;
    c->next = s->connections;
    if (c->next)
        c->next->before = c;
    s->connections = c;
    pthread_cond_signal(&s->stir);
    pthread_mutex_unlock(&s->lock);
}

static void end(struct http_server *s, struct http_connection *c)
{
    pthread_mutex_lock(&s->lock);
    if (c->exchange)
        http_exchange_leave(c->exchange);
    *(c->before ? &c->before->next : &s->connections) = c->next;
    if (c->next)
        c->next->before = c->before;
    s->n_connections--;
    pthread_mutex_unlock(&s->lock);
    free(c);
}

void http_connection_notify(void *arg, struct MHD_Connection *handle, void **connection,
                            enum MHD_ConnectionNotificationCode what)
{
    if (what == MHD_CONNECTION_NOTIFY_STARTED)
        begin(arg, handle, connection);
    else if (*connection)
        end(arg, *connection);
}

/* libmicrohttpd takes no answer in the middle of a request. It writes nothing meanwhile, so this may. */
static void say_too_slow(const struct http_connection *c)
{
    const struct http_options *o = &c->server->o;
    const char *path = c->exchange->path;
    char head[512];
    size_t n_body = 0;
    char *body = o->error_body(o->arg, path ? path : "/", 408, "the request was not whole in time", &n_body);
    const int n = snprintf(head, sizeof head, "HTTP/1.1 408 Request Timeout\r\nContent-Type: application/json\r\n"
                           "Content-Length: %zu\r\nConnection: close\r\n%s%s%s\r\n", n_body,
                           o->cors_origin ? "Access-Control-Allow-Origin: " : "", o->cors_origin ? o->cors_origin : "",
                           o->cors_origin ? "\r\n" : "");
    if (body && n > 0 && (size_t)n < sizeof head &&
        send(c->socket, head, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL | MSG_MORE) == n)
        (void)!send(c->socket, body, n_body, MSG_DONTWAIT | MSG_NOSIGNAL);
    free(body);
}

/* Ends what takes too long: a request that is not whole, an answer that nobody takes, a wait for the next request. */
static void check_time(struct http_connection *c, double now_s)
{
    struct http_exchange *x = c->exchange;
    const double idle_s = c->server->o.idle_s;
    if (x && x->whole) {
        const bool waits = x->begun && (!x->owned || x->out_end > x->out_begin);
        if (waits && now_s - x->moved_s > idle_s)
            http_exchange_cut(x);
        return;
    }
    if (now_s - c->since_s <= idle_s)
        return;
    if (x && !x->gone && !c->server->o.tls_cert)
        say_too_slow(c);
    if (x)
        x->gone = true;
    shutdown(c->socket, SHUT_RDWR);
    c->since_s = now_s; /* libmicrohttpd closes it when it sees that */
}

/* Whether the client has closed its side. */
static bool has_left(const struct http_connection *c)
{
    struct pollfd p = {.fd = c->socket, .events = POLLRDHUP};
    return poll(&p, 1, 0) > 0;
}

static void look(struct http_server *s)
{
    const double now_s = clock_s();
    for (struct http_connection *c = s->connections; c; c = c->next) {
        check_time(c, now_s);
        if (c->exchange && c->exchange->owned && !c->exchange->gone && has_left(c))
            http_exchange_cut(c->exchange);
    }
}

static struct timespec time_of(double at_s)
{
    const time_t whole_s = (time_t)at_s;
    return (struct timespec){whole_s, (long)((at_s - (double)whole_s) * 1e9)};
}

void *http_watch(void *server)
{
    struct http_server *s = server;
    pthread_mutex_lock(&s->lock);
    for (double next_s = 0; !s->closing;) {
        const struct timespec until = time_of(next_s);
        if (!s->connections) {
            pthread_cond_wait(&s->stir, &s->lock);
        } else if (clock_s() < next_s) {
            pthread_cond_timedwait(&s->stir, &s->lock, &until);
        } else {
            look(s);
            next_s = clock_s() + LOOK_S;
        }
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}
