/* Ranks as threads of one process. A sender's struct send is the node in the receiver's queues and the message is read
 * where it was written, so nothing is allocated and nothing is copied; releasing it says that it is sent.
 *
 * A mutex per inbox guards its queues and is held for a few instructions. A sender that takes its messages back (it
 * leaves, or a peer failed) removes those that nobody has found yet, and waits for those that are being read. Whoever
 * waits so has first released all that it read itself, so no two wait for each other. */
#include "transport/transport.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "transport/pieces.h"

struct cluster;

/* What one rank sends another in one channel. Under the receiver's `lock`. */
struct queue {
    struct send *first, **last; /* not yet found, in the order in which they were posted */
    struct send *held;          /* found and not yet released, linked both ways */
    int n_held;
    size_t lent;                /* bytes */
};

struct endpoint {
    struct transport base; /* first: a transport is its endpoint */
    struct cluster *cluster;
    bool told;             /* the failure was logged; the endpoint's own thread only */
    int turn;              /* the rank whose messages the next poll looks at first; own thread only */

    pthread_mutex_t lock;
    pthread_cond_t released; /* a message was; its sender may wait for it */
    bool gone;             /* closed; under `lock` */
    _Atomic int n_waiting; /* in all queues, for a look without the lock */
    struct queue *queues;  /* [n_ranks, TRANSPORT_CHANNELS] */
};

struct cluster {
    _Atomic int alive; /* endpoints not yet closed; the last one frees */
    pthread_mutex_t failing;
    _Atomic int failed_rank; /* -1: none. Set after `why` */
    char why[512];
    int n_ranks;
    struct transport_config config;
    uint32_t kinds[TRANSPORT_CHANNELS]; /* of each channel */
    struct queue *queues;               /* of all endpoints */
    struct endpoint endpoints[];        /* [n_ranks] */
};

static struct endpoint *endpoint_of(struct transport *t)
{
    return (struct endpoint *)t;
}

static struct queue *queue_of(struct endpoint *e, int from, int channel)
{
    return &e->queues[from * TRANSPORT_CHANNELS + channel];
}

/* From here on the sender may reuse the message and the node. */
static void finish(struct send *s)
{
    atomic_store_explicit(&s->done, true, memory_order_release);
}

/* Takes the first message out of a queue. Under e->lock. */
static struct send *pop(struct endpoint *e, struct queue *q)
{
    struct send *s = q->first;
    q->first = s->next;
    if (!q->first)
        q->last = &q->first;
    atomic_fetch_sub_explicit(&e->n_waiting, 1, memory_order_relaxed);
    return s;
}

/* Under e->lock. */
static void give_back(struct queue *q, struct send *s)
{
    *(s->previous ? &s->previous->next : &q->held) = s->next;
    if (s->next)
        s->next->previous = s->previous;
    q->n_held--;
    finish(s);
}

/* Releases all that e has found. */
static void release_all(struct endpoint *e)
{
    pthread_mutex_lock(&e->lock);
    for (int i = 0; i < e->cluster->n_ranks * TRANSPORT_CHANNELS; i++)
        while (e->queues[i].held)
            give_back(&e->queues[i], e->queues[i].held);
    pthread_cond_broadcast(&e->released);
    pthread_mutex_unlock(&e->lock);
}

/* Takes all that rank `from` sent out of e's inbox and says that it is done; waits for what e's thread reads. */
static void cancel_from(struct endpoint *e, int from)
{
    pthread_mutex_lock(&e->lock);
    for (int channel = 0; channel < TRANSPORT_CHANNELS; channel++) {
        struct queue *q = queue_of(e, from, channel);
        while (q->first)
            finish(pop(e, q));
        while (q->held)
            pthread_cond_wait(&e->released, &e->lock);
    }
    pthread_mutex_unlock(&e->lock);
}

/* Takes back all that e has sent: the memory is its caller's again. */
static void cancel_own(struct endpoint *e)
{
    release_all(e);
    for (int r = 0; r < e->cluster->n_ranks; r++)
        cancel_from(&e->cluster->endpoints[r], e->base.rank);
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

static status inproc_connect(struct transport *t)
{
    return check_peers(endpoint_of(t));
}

static status inproc_register(struct transport *t, void *memory, size_t bytes)
{
    (void)t, (void)memory, (void)bytes;
    return ST_OK;
}

static status inproc_lend(struct transport *t, int from, int channel, void *memory, size_t bytes)
{
    struct endpoint *e = endpoint_of(t);
    (void)memory; /* it is not needed here; but what does not fit elsewhere is refused here too */
    pthread_mutex_lock(&e->lock);
    queue_of(e, from, channel)->lent = bytes;
    pthread_mutex_unlock(&e->lock);
    return ST_OK;
}

static status inproc_post(struct transport *t, int to, int kind, const void *data, size_t size, struct send *s)
{
    struct endpoint *e = endpoint_of(t);
    if (check_peers(e) != ST_OK)
        return ST_PEER;
    struct endpoint *peer = &e->cluster->endpoints[to];
    struct queue *q = queue_of(peer, t->rank, e->cluster->config.channel[kind]);

    atomic_store_explicit(&s->done, false, memory_order_relaxed);
    s->data = data;
    s->size = size;
    s->from = t->rank;
    s->to = to;
    s->kind = kind;
    s->next = NULL;
    pthread_mutex_lock(&peer->lock);
    bool gone = peer->gone;
    if (!gone) {
        *q->last = s;
        q->last = &s->next;
        atomic_fetch_add_explicit(&peer->n_waiting, 1, memory_order_relaxed);
    }
    pthread_mutex_unlock(&peer->lock);
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

/* Takes the first message of a queue if it is wanted. Under e->lock. */
static status take(struct endpoint *e, struct queue *q, uint32_t kinds, struct arrival *a, bool *found)
{
    struct send *s = q->first;
    if (!s || !(kinds >> s->kind & 1) || q->n_held >= TRANSPORT_SLOTS)
        return ST_OK;
    if (s->size > TRANSPORT_SLOT && s->size > q->lent) {
        status st = refuse_long(s->from, s->kind, s->size, q->lent);
        finish(pop(e, q));
        return st;
    }
    for (struct send *h = q->held; h && s->size > TRANSPORT_SLOT; h = h->next)
        if (h->size > TRANSPORT_SLOT)
            return ST_OK; /* what was lent is in use */
    pop(e, q);
    s->previous = NULL;
    s->next = q->held;
    if (q->held)
        q->held->previous = s;
    q->held = s;
    q->n_held++;
    *a = (struct arrival){.from = s->from, .kind = s->kind, .size = s->size, .data = (void *)s->data, .handle = {s}};
    *found = true;
    return ST_OK;
}

static status inproc_poll(struct transport *t, uint32_t kinds, struct arrival *a, bool *found)
{
    struct endpoint *e = endpoint_of(t);
    const int n = t->n_ranks;
    *found = false;
    if (!kinds) /* there is nothing to move; and who asks may be reading what a failure would give back */
        return ST_OK;
    status st = check_peers(e);
    if (st)
        return st;
    if (!atomic_load_explicit(&e->n_waiting, memory_order_relaxed))
        return ST_OK;
    pthread_mutex_lock(&e->lock);
    for (int i = 0; i < n && !st && !*found; i++) {
        const int from = (e->turn + i) % n;
        for (int channel = 0; channel < TRANSPORT_CHANNELS && !st && !*found; channel++)
            if (kinds & e->cluster->kinds[channel])
                st = take(e, queue_of(e, from, channel), kinds, a, found);
    }
    pthread_mutex_unlock(&e->lock);
    if (*found)
        e->turn = (a->from + 1) % n;
    return st;
}

static status inproc_release(struct transport *t, struct arrival *a)
{
    struct endpoint *e = endpoint_of(t);
    if (check_peers(e) != ST_OK)
        return ST_PEER; /* it was released then */
    pthread_mutex_lock(&e->lock);
    give_back(queue_of(e, a->from, e->cluster->config.channel[a->kind]), a->handle[0]);
    pthread_cond_broadcast(&e->released);
    pthread_mutex_unlock(&e->lock);
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
        pthread_mutex_destroy(&c->endpoints[r].lock);
        pthread_cond_destroy(&c->endpoints[r].released);
    }
    pthread_mutex_destroy(&c->failing);
    free(c->queues);
    free(c);
}

static void inproc_close(struct transport *t)
{
    struct endpoint *e = endpoint_of(t);
    struct cluster *c = e->cluster;
    pthread_mutex_lock(&e->lock);
    e->gone = true;
    for (int i = 0; i < c->n_ranks * TRANSPORT_CHANNELS; i++)
        while (e->queues[i].first)
            finish(pop(e, &e->queues[i]));
    pthread_mutex_unlock(&e->lock);
    cancel_own(e);
    if (atomic_fetch_sub_explicit(&c->alive, 1, memory_order_acq_rel) == 1)
        cluster_free(c);
}

static const struct transport_ops inproc_ops = {
    .name = "inproc",
    .connect = inproc_connect,
    .register_memory = inproc_register,
    .lend = inproc_lend,
    .post = inproc_post,
    .sent = inproc_sent,
    .poll = inproc_poll,
    .release = inproc_release,
    .abandon = inproc_abandon,
    .close = inproc_close,
};

static void endpoint_init(struct cluster *c, int rank)
{
    struct endpoint *e = &c->endpoints[rank];
    e->base = (struct transport){.ops = &inproc_ops, .rank = rank, .n_ranks = c->n_ranks};
    e->cluster = c;
    e->queues = c->queues + (size_t)rank * (size_t)c->n_ranks * TRANSPORT_CHANNELS;
    for (int i = 0; i < c->n_ranks * TRANSPORT_CHANNELS; i++)
        e->queues[i].last = &e->queues[i].first;
    atomic_init(&e->n_waiting, 0);
    pthread_mutex_init(&e->lock, NULL);
    pthread_cond_init(&e->released, NULL);
}

status transport_inproc_open(const struct transport_config *config, int n_ranks, struct transport **out)
{
    if (n_ranks < 1) {
        log_error("inproc transport: %d ranks asked for, expected at least 1", n_ranks);
        return ST_USAGE;
    }
    struct cluster *c = calloc(1, sizeof *c + (size_t)n_ranks * sizeof c->endpoints[0]);
    struct queue *queues = calloc((size_t)n_ranks * (size_t)n_ranks * TRANSPORT_CHANNELS, sizeof *queues);
    if (!c || !queues) {
        log_error("inproc transport: no memory for %d ranks", n_ranks);
        free(c);
        free(queues);
        return ST_NOMEM;
    }
    atomic_init(&c->alive, n_ranks);
    atomic_init(&c->failed_rank, -1);
    pthread_mutex_init(&c->failing, NULL);
    c->n_ranks = n_ranks;
    c->config = *config;
    c->queues = queues;
    for (int kind = 0; kind < TRANSPORT_KINDS; kind++)
        c->kinds[config->channel[kind]] |= 1u << kind;
    for (int r = 0; r < n_ranks; r++) {
        endpoint_init(c, r);
        out[r] = &c->endpoints[r].base;
    }
    return ST_OK;
}
