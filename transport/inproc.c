/* Ranks as threads of one process. A sender's struct send is the node in the receiver's inbox, so nothing is allocated
 * and nothing is copied but once, by receive(), from the sender's memory into the receiver's buffer.
 *
 * Two mutexes per inbox, in the order copy -> queue: `queue` guards the list and is held for a few instructions;
 * `copy` is held by receive() while it reads the sender's memory, so that a sender which is destroyed meanwhile waits
 * for it, while other senders do not. */
#include "transport/transport.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

struct cluster;

struct endpoint {
    struct transport base; /* first: a transport is its endpoint */
    struct cluster *cluster;
    bool told; /* the failure was logged; the endpoint's own thread only */

    pthread_mutex_t copy, queue;
    struct send *first, **last; /* in the order of arrival; under `queue` */
    bool gone;                  /* destroyed; under `queue` */
    _Atomic bool filled;        /* first != NULL, for a look without the lock */
};

struct cluster {
    _Atomic int alive; /* endpoints not yet destroyed; the last one frees */
    pthread_mutex_t failing;
    _Atomic int failed_rank; /* -1: none. Set after `why` */
    char why[512];
    int n_ranks;
    struct endpoint endpoints[]; /* [n_ranks] */
};

static struct endpoint *endpoint_of(struct transport *t)
{
    return (struct endpoint *)t;
}

static void finish(struct send *s)
{
    /* From here on the sender may reuse the message and the node. */
    atomic_store_explicit(&s->done, true, memory_order_release);
}

/* Unlinks *at. Under e->queue. */
static void unlink_node(struct endpoint *e, struct send **at)
{
    struct send *s = *at;
    *at = s->next;
    if (!s->next)
        e->last = at;
    atomic_store_explicit(&e->filled, e->first != NULL, memory_order_relaxed);
}

/* Takes what rank `from` sent (any rank: -1) out of e's inbox, and says that it is done. */
static void cancel(struct endpoint *e, int from)
{
    pthread_mutex_lock(&e->copy);
    pthread_mutex_lock(&e->queue);
    if (from < 0)
        e->gone = true;
    for (struct send **at = &e->first; *at;) {
        struct send *s = *at;
        if (from >= 0 && s->from != from) {
            at = &s->next;
            continue;
        }
        unlink_node(e, at);
        finish(s);
    }
    pthread_mutex_unlock(&e->queue);
    pthread_mutex_unlock(&e->copy);
}

/* Takes back all that e has sent: the senders' memory is theirs again. */
static void cancel_own(struct endpoint *e)
{
    for (int r = 0; r < e->cluster->n_ranks; r++)
        cancel(&e->cluster->endpoints[r], e->base.rank);
}

/* ST_PEER once any rank has abandoned the cluster. */
static status check_peers(struct endpoint *e)
{
    struct cluster *c = e->cluster;
    int rank = atomic_load_explicit(&c->failed_rank, memory_order_acquire);
    if (rank < 0)
        return ST_OK;
    if (!e->told && rank != e->base.rank)
        log_error("rank %d: %s", rank, c->why);
    if (!e->told)
        cancel_own(e);
    e->told = true;
    return ST_PEER;
}

static status inproc_send(struct transport *t, int to, int kind, const void *data, size_t size, struct send *s)
{
    struct endpoint *e = endpoint_of(t);
    if (check_peers(e) != ST_OK)
        return ST_PEER;
    struct endpoint *peer = &e->cluster->endpoints[to];

    atomic_store_explicit(&s->done, false, memory_order_relaxed);
    s->data = data;
    s->size = size;
    s->from = t->rank;
    s->kind = kind;
    s->next = NULL;
    pthread_mutex_lock(&peer->queue);
    bool gone = peer->gone;
    if (!gone) {
        *peer->last = s;
        peer->last = &s->next;
        atomic_store_explicit(&peer->filled, true, memory_order_relaxed);
    }
    pthread_mutex_unlock(&peer->queue);
    if (gone)
        finish(s); /* left in peace: nobody misses the message */
    return ST_OK;
}

static status inproc_sent(struct transport *t, struct send *s, bool *done)
{
    if (check_peers(endpoint_of(t)) != ST_OK)
        return ST_PEER;
    *done = atomic_load_explicit(&s->done, memory_order_acquire);
    return ST_OK;
}

static status inproc_poll(struct transport *t, uint32_t kinds, struct arrival *a, bool *found)
{
    struct endpoint *e = endpoint_of(t);
    if (check_peers(e) != ST_OK)
        return ST_PEER;
    *found = false;
    if (!atomic_load_explicit(&e->filled, memory_order_relaxed))
        return ST_OK;
    pthread_mutex_lock(&e->queue);
    for (struct send *s = e->first; s; s = s->next) {
        if (kinds >> s->kind & 1) {
            *a = (struct arrival){.from = s->from, .kind = s->kind, .size = s->size, .handle = {s}};
            *found = true;
            break;
        }
    }
    pthread_mutex_unlock(&e->queue);
    return ST_OK;
}

static status inproc_receive(struct transport *t, struct arrival *a, void *buffer)
{
    struct endpoint *e = endpoint_of(t);
    if (check_peers(e) != ST_OK)
        return ST_PEER;
    pthread_mutex_lock(&e->copy);
    pthread_mutex_lock(&e->queue);
    struct send **at = &e->first;
    while (*at && !(*at == a->handle[0] && (*at)->from == a->from && (*at)->size == a->size))
        at = &(*at)->next;
    struct send *s = *at; /* NULL: its sender was destroyed after the poll */
    if (s)
        unlink_node(e, at);
    pthread_mutex_unlock(&e->queue);
    if (s) {
        if (a->size)
            memcpy(buffer, s->data, a->size);
        finish(s);
    }
    pthread_mutex_unlock(&e->copy);
    if (!s) {
        log_error("rank %d: left while rank %d received its message of kind %d", a->from, t->rank, a->kind);
        return ST_PEER;
    }
    return ST_OK;
}

static void inproc_abandon(struct transport *t, const char *why)
{
    struct cluster *c = endpoint_of(t)->cluster;
    pthread_mutex_lock(&c->failing);
    if (atomic_load_explicit(&c->failed_rank, memory_order_relaxed) < 0) {
        snprintf(c->why, sizeof c->why, "%s", why);
        atomic_store_explicit(&c->failed_rank, t->rank, memory_order_release);
    }
    pthread_mutex_unlock(&c->failing);
    cancel_own(endpoint_of(t));
}

static void cluster_free(struct cluster *c)
{
    for (int r = 0; r < c->n_ranks; r++) {
        pthread_mutex_destroy(&c->endpoints[r].copy);
        pthread_mutex_destroy(&c->endpoints[r].queue);
    }
    pthread_mutex_destroy(&c->failing);
    free(c);
}

static void inproc_destroy(struct transport *t)
{
    struct endpoint *e = endpoint_of(t);
    struct cluster *c = e->cluster;
    cancel(e, -1);
    cancel_own(e);
    if (atomic_fetch_sub_explicit(&c->alive, 1, memory_order_acq_rel) == 1)
        cluster_free(c);
}

static const struct transport_ops inproc_ops = {
    .name = "inproc",
    .send = inproc_send,
    .sent = inproc_sent,
    .poll = inproc_poll,
    .receive = inproc_receive,
    .abandon = inproc_abandon,
    .destroy = inproc_destroy,
};

status transport_inproc_create(int n_ranks, struct transport **out)
{
    if (n_ranks < 1) {
        log_error("inproc transport: %d ranks asked for, expected at least 1", n_ranks);
        return ST_USAGE;
    }
    struct cluster *c = calloc(1, sizeof *c + (size_t)n_ranks * sizeof c->endpoints[0]);
    if (!c) {
        log_error("inproc transport: no memory for %d ranks", n_ranks);
        return ST_NOMEM;
    }
    atomic_init(&c->alive, n_ranks);
    atomic_init(&c->failed_rank, -1);
    pthread_mutex_init(&c->failing, NULL);
    c->n_ranks = n_ranks;
    for (int r = 0; r < n_ranks; r++) {
        struct endpoint *e = &c->endpoints[r];
        e->base = (struct transport){.ops = &inproc_ops, .rank = r, .n_ranks = n_ranks};
        e->cluster = c;
        e->last = &e->first;
        atomic_init(&e->filled, false);
        pthread_mutex_init(&e->copy, NULL);
        pthread_mutex_init(&e->queue, NULL);
        out[r] = &e->base;
    }
    return ST_OK;
}
