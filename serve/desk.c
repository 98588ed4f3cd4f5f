#include "serve/desk.h"

#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include "base/log.h"

enum { LARGE = 1 << 20 }; /* bytes of a body whose tree is worth giving back to the system: it is many times as large */

/* A request that waits. */
struct paper {
    struct http_exchange *x;
    desk_work *work;
};

struct desk {
    struct api *api;
    pthread_t thread;
    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t come;
    struct paper *papers; /* [most] a ring */
    size_t most, first, n;
    bool over;
};

/* The body as JSON; NULL: the client has been told. jansson takes neither NUL, broken UTF-8 nor lone surrogates, nor
 * what is nested deeper than 2048. */
static json_t *read_body(struct http_exchange *x)
{
    json_error_t e;
    size_t n;
    const char *body = http_body(x, &n);
    json_t *root = json_loadb(body, n, 0, &e);
    if (!root && n == 0)
        api_refuse(x, 400, "invalid_json", NULL, "the body is empty: expected a JSON object");
    else if (!root)
        api_refuse(x, 400, "invalid_json", NULL, "the body is no JSON: line %d, column %d: %s", e.line, e.column,
                   e.text);
    if (!root)
        return NULL;
    if (!json_is_object(root)) {
        json_decref(root);
        api_refuse(x, 400, "invalid_type", NULL, "the body is JSON, but no object");
        return NULL;
    }
    return root;
}

static void do_work(struct desk *d, const struct paper *p)
{
    json_t *root;
    if (atomic_load(&d->api->stopping)) {
        api_refuse(p->x, 503, NULL, NULL, "the server is stopping");
        return;
    }
    if (http_gone(p->x)) {
        api_refuse(p->x, 503, NULL, NULL, "the client has left");
        return;
    }
    size_t n;
    http_body(p->x, &n);
    root = read_body(p->x);
    if (root)
        p->work(d->api, p->x, root);
    json_decref(root);
    if (n > LARGE)
        malloc_trim(0);
}

static void *desk_run(void *arg)
{
    struct desk *d = arg;
    pthread_mutex_lock(&d->lock);
    for (;;) {
        while (d->n == 0 && !d->over)
            pthread_cond_wait(&d->come, &d->lock);
        if (d->n == 0)
            break;
        const struct paper p = d->papers[d->first];
        d->first = (d->first + 1) % d->most;
        d->n--;
        pthread_mutex_unlock(&d->lock);
        do_work(d, &p);
        pthread_mutex_lock(&d->lock);
    }
    pthread_mutex_unlock(&d->lock);
    return NULL;
}

status desk_create(struct api *api, size_t most, struct desk **out)
{
    struct desk *d = calloc(1, sizeof *d);
    if (d)
        d->papers = calloc(most, sizeof *d->papers);
    if (!d || !d->papers) {
        free(d);
        log_error("no memory for the server's desk");
        return ST_NOMEM;
    }
    d->api = api;
    d->most = most;
    pthread_mutex_init(&d->lock, NULL);
    pthread_cond_init(&d->come, NULL);
    const int e = pthread_create(&d->thread, NULL, desk_run, d);
    if (e) {
        log_error("cannot start the server's desk: %s", strerror(e));
        d->over = true;
        desk_free(d);
        return ST_INTERNAL;
    }
    *out = d;
    return ST_OK;
}

void desk_take(struct api *api, struct http_exchange *x, desk_work *work)
{
    if (!api_is_ready(api, x))
        return;
    struct desk *d = api->desk;
    pthread_mutex_lock(&d->lock);
    const bool over = d->over, full = d->n == d->most;
    if (!over && !full) {
        d->papers[(d->first + d->n) % d->most] = (struct paper){x, work};
        d->n++;
        pthread_cond_signal(&d->come);
    }
    pthread_mutex_unlock(&d->lock);
    if (over)
        api_refuse(x, 503, NULL, NULL, "the server is stopping");
    else if (full)
        api_refuse(x, 429, "queue_full", NULL, "too many requests wait");
}

void desk_stop(struct desk *d)
{
    atomic_store(&d->api->stopping, true);
    pthread_mutex_lock(&d->lock);
    d->over = true;
    pthread_cond_signal(&d->come);
    pthread_mutex_unlock(&d->lock);
    pthread_join(d->thread, NULL);
}

void desk_free(struct desk *d)
{
    if (!d)
        return;
    pthread_cond_destroy(&d->come);
    pthread_mutex_destroy(&d->lock);
    free(d->papers);
    free(d);
}
