/* Sending and waiting. Whoever waits serves: a request for this rank's neurons never waits for anything itself. */
#include <sched.h>

#include "base/log.h"
#include "transport/deliver.h"
#include "worker/internal.h"

/* Polls before a waiting rank yields, and before it starts to sleep: an answer usually comes within microseconds, the
 * next prompt perhaps tomorrow. */
enum { POLLS_BEFORE_YIELD = 64, POLLS_BEFORE_SLEEP = 20000 };

void be_idle(struct transport *t, unsigned *polls)
{
    ++*polls;
    if (*polls > POLLS_BEFORE_SLEEP) {
        transport_idle(t);
        *polls = POLLS_BEFORE_SLEEP;
    } else if (*polls > POLLS_BEFORE_YIELD) {
        sched_yield();
    }
}

void keep_moving(struct worker *w, uint32_t n)
{
    w->moving = w->n_ranks > 1 && n * w->limits.d_model * sizeof(double) > TRANSPORT_SLOTS * TRANSPORT_SLOT;
}

void move_messages(void *worker)
{
    struct worker *w = worker;
    struct arrival none;
    bool found;
    if (w->moving) /* a failure is found again by whoever waits next */
        (void)transport_poll(w->o.transport, 0, &none, &found);
}

static status take_failed(struct worker *w, struct arrival *a)
{
    char reason[WIRE_FAILED_MAX];
    if (wire_failed_decode(a->data, a->size, reason) == ST_OK)
        log_error("rank %d: %s", a->from, reason);
    (void)transport_release(w->o.transport, a);
    return ST_PEER;
}

status serve_or_find(struct worker *w, uint32_t kinds, struct arrival *a, bool *found)
{
    const uint32_t served = 1u << WIRE_REQUEST | 1u << WIRE_FAILED;
    status st = transport_poll(w->o.transport, kinds | served, a, found);
    if (!st && *found)
        w->polls = 0; /* served or found: a rank at work must not fall asleep between requests */
    while (!st && *found && !(kinds >> a->kind & 1)) {
        st = a->kind == WIRE_REQUEST ? shard_serve(w, a) : take_failed(w, a);
        if (!st)
            st = transport_poll(w->o.transport, kinds | served, a, found);
    }
    return st;
}

status send_wait(struct worker *w, struct send *s)
{
    bool done = false;
    for (;;) {
        status st = transport_sent(w->o.transport, s, &done);
        if (st || done)
            return st;
        struct arrival a;
        bool found;
        st = serve_or_find(w, 0, &a, &found);
        if (st)
            return st;
        be_idle(w->o.transport, &w->polls);
    }
}

status multicast_wait(struct worker *w, struct multicast *m)
{
    status st = ST_OK;
    for (int r = 0; r < w->n_ranks && !st; r++)
        if (!atomic_load_explicit(&m->sends[r].done, memory_order_acquire))
            st = send_wait(w, &m->sends[r]);
    return st;
}

status multicast_send(struct worker *w, struct multicast *m, int to, int kind, size_t size)
{
    return transport_post(w->o.transport, to, kind, m->buffer, size, &m->sends[to]);
}

status outbox_wait(struct worker *w, struct outbox *b) { return send_wait(w, &b->send); }

status outbox_send(struct worker *w, struct outbox *b, int to, int kind, size_t size)
{
    return transport_post(w->o.transport, to, kind, b->buffer, size, &b->send);
}

void worker_fail(struct transport *t, const char *reason)
{
    _Alignas(TRANSPORT_ALIGN) uint8_t message[WIRE_FAILED_MAX];
    deliver_last(t, WIRE_FAILED, message, wire_failed_encode(reason, message, sizeof message), reason);
}
