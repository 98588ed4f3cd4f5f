#include "worker/exchange.h"

#include <sched.h>
#include <stdlib.h>

#include "base/log.h"
#include "transport/deliver.h"
#include "wire/wire.h"
#include "worker/worker.h"

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

struct exchange {
    struct transport *t;
    int n_ranks;
    serve_request *serve;
    void *serve_arg;
    bool moving;    /* messages of the work at hand are longer than a transport holds by itself */
    unsigned polls; /* in a row that found nothing */
};

status exchange_new(struct transport *t, int n_ranks, struct exchange **out)
{
    struct exchange *e = calloc(1, sizeof *e);
    if (!e) {
        log_error("out of memory for a rank's messages");
        return ST_NOMEM;
    }
    *e = (struct exchange){.t = t, .n_ranks = n_ranks};
    *out = e;
    return ST_OK;
}

void exchange_free(struct exchange *e) { free(e); }

void exchange_serves(struct exchange *e, serve_request *serve, void *arg)
{
    e->serve = serve;
    e->serve_arg = arg;
}

void exchange_idle(struct exchange *e) { be_idle(e->t, &e->polls); }

/* ---- memory ---- */

void outbox_lay(struct arena *a, struct outbox *b, size_t capacity)
{
    *b = (struct outbox){.buffer = arena_alloc(a, capacity), .capacity = capacity};
    atomic_store(&b->send.done, true);
}

status multicast_new(struct multicast *m, int n_ranks)
{
    *m = (struct multicast){.sends = calloc((size_t)n_ranks, sizeof *m->sends)};
    for (int r = 0; m->sends && r < n_ranks; r++)
        atomic_store(&m->sends[r].done, true);
    if (m->sends)
        return ST_OK;
    log_error("out of memory for a message to all ranks");
    return ST_NOMEM;
}

void multicast_lay(struct arena *a, struct multicast *m, size_t capacity)
{
    m->buffer = arena_alloc(a, capacity);
    m->capacity = capacity;
}

void multicast_free(struct multicast *m) { free(m->sends); }

status room_lay(struct exchange *e, struct arena *a, int from, int channel, size_t bytes)
{
    if (bytes <= TRANSPORT_SLOT)
        return ST_OK;
    void *memory = arena_alloc(a, bytes);
    return memory ? transport_lend(e->t, from, channel, memory, bytes) : ST_OK;
}

/* ---- looking and waiting ---- */

void keep_moving(struct exchange *e, size_t bytes)
{
    e->moving = e->n_ranks > 1 && bytes > TRANSPORT_SLOTS * TRANSPORT_SLOT;
}

void move_messages(void *exchange)
{
    struct exchange *e = exchange;
    struct arrival none;
    bool found;
    if (e->moving) /* a failure is found again by whoever waits next */
        (void)transport_poll(e->t, 0, &none, &found);
}

static status take_failed(struct exchange *e, struct arrival *a)
{
    char reason[WIRE_FAILED_MAX];
    if (wire_failed_decode(a->data, a->size, reason) == ST_OK)
        log_error("rank %d: %s", a->from, reason);
    (void)transport_release(e->t, a);
    return ST_PEER;
}

status serve_or_find(struct exchange *e, uint32_t kinds, struct arrival *a, bool *found)
{
    const uint32_t served = 1u << WIRE_REQUEST | 1u << WIRE_FAILED;
    status st = transport_poll(e->t, kinds | served, a, found);
    if (!st && *found)
        e->polls = 0; /* served or found: a rank at work must not fall asleep between requests */
    while (!st && *found && !(kinds >> a->kind & 1)) {
        st = a->kind == WIRE_REQUEST ? e->serve(e->serve_arg, a) : take_failed(e, a);
        if (!st)
            st = transport_poll(e->t, kinds | served, a, found);
    }
    return st;
}

status exchange_serve(void *exchange)
{
    struct exchange *e = exchange;
    struct arrival a;
    bool found;
    status st = serve_or_find(e, 0, &a, &found);
    if (!st)
        exchange_idle(e);
    return st;
}

static status send_wait(struct exchange *e, struct send *s)
{
    bool done = false;
    for (;;) {
        status st = transport_sent(e->t, s, &done);
        if (st || done)
            return st;
        st = exchange_serve(e);
        if (st)
            return st;
    }
}

status multicast_wait(struct exchange *e, struct multicast *m)
{
    status st = ST_OK;
    for (int r = 0; r < e->n_ranks && !st; r++)
        if (!atomic_load_explicit(&m->sends[r].done, memory_order_acquire))
            st = send_wait(e, &m->sends[r]);
    return st;
}

status multicast_send(struct exchange *e, struct multicast *m, int to, int kind, size_t size)
{
    return transport_post(e->t, to, kind, m->buffer, size, &m->sends[to]);
}

status multicast_sent(struct exchange *e, struct multicast *m, bool *done)
{
    status st = ST_OK;
    *done = true;
    for (int r = 0; r < e->n_ranks && !st && *done; r++)
        if (!atomic_load_explicit(&m->sends[r].done, memory_order_acquire))
            st = transport_sent(e->t, &m->sends[r], done);
    return st;
}

status exchange_release(struct exchange *e, struct arrival *a) { return transport_release(e->t, a); }

status outbox_wait(struct exchange *e, struct outbox *b) { return send_wait(e, &b->send); }

status outbox_sent(struct exchange *e, struct outbox *b, bool *done) { return transport_sent(e->t, &b->send, done); }

status outbox_send(struct exchange *e, struct outbox *b, int to, int kind, size_t size)
{
    return transport_post(e->t, to, kind, b->buffer, size, &b->send);
}

void worker_fail(struct transport *t, const char *reason)
{
    _Alignas(TRANSPORT_ALIGN) uint8_t message[WIRE_FAILED_MAX];
    deliver_last(t, WIRE_FAILED, message, wire_failed_encode(reason, message, sizeof message), reason);
}
