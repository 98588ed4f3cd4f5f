/* The table of operations over verbs; the parts stand in verbs_*.c. */
#include "transport/verbs.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "transport/verbs_internal.h"

enum { SLEEP_MS = 50, EVENTS_BEFORE_ACK = 64 };

static struct verbs_transport *verbs_of(struct transport *t) { return (struct verbs_transport *)t; }

/* Passes a status on. Who has lost a peer goes itself, telling the others why, unless they know. */
static status settle(struct verbs_transport *v, status st)
{
    if (st == ST_PEER)
        verbs_quit(v, v->told ? "" : v->why);
    return st;
}

static status progress(struct verbs_transport *v) { return settle(v, verbs_progress(v)); }

/* ---- sending ---- */

static status verbs_post(struct transport *t, int to, int kind, const void *data, size_t size, struct send *s)
{
    struct verbs_transport *v = verbs_of(t);
    if (v->failed)
        return ST_PEER;
    struct peer *p = &v->peers[to];
    struct lane *l = &p->lanes[v->config.channel[kind]];
    atomic_store_explicit(&s->done, false, memory_order_relaxed);
    s->data = data;
    s->size = size;
    s->at = 0;
    s->from = t->rank;
    s->to = to;
    s->kind = kind;
    s->in_flight = 0;
    s->next = NULL;
    *l->last = s;
    l->last = &s->next;
    if (!p->qp) { /* to this rank itself: a poll finds it in the lane */
        v->n_waiting++;
        return ST_OK;
    }
    v->n_queued++;
    return settle(v, verbs_push(v, p));
}

static status verbs_sent(struct transport *t, struct send *s, bool *done)
{
    struct verbs_transport *v = verbs_of(t);
    if (v->failed)
        return ST_PEER;
    status st = ST_OK;
    if (!atomic_load_explicit(&s->done, memory_order_relaxed))
        st = progress(v);
    if (!st)
        *done = atomic_load_explicit(&s->done, memory_order_relaxed);
    return st;
}

/* ---- receiving ---- */

static status verbs_poll(struct transport *t, uint32_t kinds, struct arrival *a, bool *found)
{
    struct verbs_transport *v = verbs_of(t);
    if (v->failed)
        return ST_PEER;
    status st = verbs_take(v, kinds, a, found);
    if (st || *found)
        return st;
    st = progress(v);
    return st ? st : verbs_take(v, kinds, a, found);
}

static status verbs_release(struct transport *t, struct arrival *a)
{
    struct verbs_transport *v = verbs_of(t);
    if (v->failed)
        return ST_PEER;
    verbs_give_back(v, a);
    return ST_OK;
}

/* Sleeps on the completion channel. Between asking for an event and sleeping it looks once more: what came before the
 * question raises none. */
static void verbs_idle(struct transport *t)
{
    struct verbs_transport *v = verbs_of(t);
    struct pollfd channel = {.fd = v->channel ? v->channel->fd : -1, .events = POLLIN};
    struct ibv_cq *cq;
    const uint64_t before = v->n_completed;
    if (v->failed || !v->connected || v->n_waiting || ibv_req_notify_cq(v->cq, 0))
        return;
    if (progress(v) || v->n_completed != before)
        return; /* a failure is found again by whoever polls */
    if (poll(&channel, 1, SLEEP_MS) == 1 && v->calls->get_cq_event(v->channel, &cq) == 0 &&
        ++v->n_events == EVENTS_BEFORE_ACK) {
        v->calls->ack_cq_events(v->cq, v->n_events);
        v->n_events = 0;
    }
    (void)settle(v, verbs_beat(v));
}

/* ---- memory ---- */

static status verbs_register(struct transport *t, void *memory, size_t bytes)
{
    struct verbs_transport *v = verbs_of(t);
    if (v->failed)
        return ST_PEER;
    struct ibv_mr *mr = v->n_regions < MAX_REGIONS && bytes ? v->calls->reg_mr(v->pd, memory, bytes, 0) : NULL;
    if (mr)
        v->regions[v->n_regions++] = (struct region){.start = memory, .bytes = bytes, .mr = mr};
    else if (bytes) /* slower, but as right */
        log_warn("rank %d: %zu KiB of buffers cannot be registered with %s%s: messages from them are copied", t->rank,
                 bytes / 1024, v->port.name, errno == ENOMEM ? " (ulimit -l)" : "");
    return ST_OK;
}

static status verbs_lend(struct transport *t, int from, int channel, void *memory, size_t bytes)
{
    struct assembly *big = &verbs_of(t)->peers[from].lanes[channel].big;
    big->memory = memory;
    big->capacity = bytes;
    return ST_OK;
}

/* ---- from open to close ---- */

static status verbs_connect_once(struct transport *t)
{
    struct verbs_transport *v = verbs_of(t);
    status st = v->connected ? ST_OK : verbs_connect(v);
    if (st)
        v->failed = true;
    return st;
}

static void verbs_abandon(struct transport *t, const char *why) { verbs_quit(verbs_of(t), why); }

/* Gives every slot back, whatever it holds: nobody reads it any more. */
static void throw_away(struct verbs_transport *v)
{
    for (int r = 0; r < v->base.n_ranks; r++) {
        struct peer *p = &v->peers[r];
        p->freed |= p->filled;
        p->filled = 0;
        for (int c = 0; c < TRANSPORT_CHANNELS; c++) {
            struct lane *l = &p->lanes[c];
            struct send *next;
            l->n = 0;
            if (p->qp)
                continue;
            for (struct send *s = l->out; s; s = next) {
                next = s->next;
                atomic_store_explicit(&s->done, true, memory_order_relaxed);
            }
            l->out = NULL;
            l->last = &l->out;
        }
    }
    v->n_waiting = 0;
}

/* Says LEAVE to a peer for which nothing is under way any more. *gone: it has said the same, and neither waits. */
static status say_goodbye(struct verbs_transport *v, struct peer *p, bool *gone)
{
    bool queued = false;
    for (int c = 0; c < TRANSPORT_CHANNELS; c++)
        queued = queued || p->lanes[c].out;
    *gone = p->left && p->leaving && (!p->n_last || p->lost);
    if (queued || p->writing || p->leaving)
        return ST_OK;
    p->leaving = true;
    return settle(v, verbs_control(v, p, CONTROL_LEAVE, 0));
}

/* Finishes every send of every rank: whatever still comes is thrown away, until every rank has said LEAVE. */
static void drain(struct verbs_transport *v)
{
    status st = ST_OK;
    int there = 1;
    v->closing = true;
    throw_away(v);
    for (unsigned rounds = 0; !st && there; rounds++) {
        there = 0;
        st = progress(v);
        for (int r = 0; r < v->base.n_ranks && !st; r++) {
            bool gone = true;
            if (v->peers[r].qp)
                st = say_goodbye(v, &v->peers[r], &gone);
            there += !gone;
        }
        if (rounds > 100)
            sched_yield();
    }
}

static void verbs_close(struct transport *t)
{
    struct verbs_transport *v = verbs_of(t);
    if (v->connected && !v->failed)
        drain(v);
    verbs_disconnect(v);
    verbs_cancel_sends(v);
    verbs_port_close(v);
    free(v->peers);
    free(v->addresses);
    free(v);
}

static const struct transport_ops verbs_ops = {
    .name = "verbs",
    .connect = verbs_connect_once,
    .register_memory = verbs_register,
    .lend = verbs_lend,
    .post = verbs_post,
    .sent = verbs_sent,
    .poll = verbs_poll,
    .release = verbs_release,
    .idle = verbs_idle,
    .abandon = verbs_abandon,
    .close = verbs_close,
};

status transport_verbs_open(const struct transport_config *c, const struct verbs_options *o, int rank, int n_ranks,
                            const struct verbs_gather *g, struct transport **out)
{
    struct verbs_transport *v = calloc(1, sizeof *v);
    if (v) {
        v->peers = calloc((size_t)n_ranks, sizeof *v->peers);
        v->addresses = verbs_new_addresses(n_ranks);
    }
    if (!v || !v->peers || !v->addresses) {
        log_error("verbs transport: no memory for %d ranks", n_ranks);
        if (v) {
            free(v->peers);
            free(v->addresses);
        }
        free(v);
        return ST_NOMEM;
    }
    v->base = (struct transport){.ops = &verbs_ops, .rank = rank, .n_ranks = n_ranks};
    v->config = *c;
    v->options = *o;
    v->calls = o->calls ? o->calls : &verbs_libibverbs;
    v->gather = *g;
    for (int kind = 0; kind < TRANSPORT_KINDS; kind++)
        v->kinds[c->channel[kind]] |= 1u << kind;
    for (int r = 0; r < n_ranks; r++) {
        struct peer *p = &v->peers[r];
        p->rank = r;
        memset(p->bounces, -1, sizeof p->bounces);
        for (int ch = 0; ch < TRANSPORT_CHANNELS; ch++)
            p->lanes[ch].last = &p->lanes[ch].out;
    }
    status st = verbs_port_open(v);
    if (st) {
        verbs_close(&v->base);
        return st;
    }
    *out = &v->base;
    return ST_OK;
}

const char *transport_verbs_port(const struct transport *t) { return ((const struct verbs_transport *)t)->port.about; }
