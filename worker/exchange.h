/* Sending and waiting. Whoever waits serves: a request for what this rank holds never waits for anything itself. */
#ifndef HEARTH_WORKER_EXCHANGE_H
#define HEARTH_WORKER_EXCHANGE_H

#include "base/arena.h"
#include "transport/transport.h"

/* A message this rank sends again and again. */
struct outbox {
    uint8_t *buffer;
    size_t capacity;
    struct send send;                /* one under way at most */
};

/* A message that goes to several ranks: a send each. */
struct multicast {
    uint8_t *buffer;                 /* NULL: it is never sent */
    size_t capacity;
    struct send *sends;              /* [n_ranks] */
};

struct exchange;

/* Serves a request, and releases it. */
typedef status serve_request(void *arg, struct arrival *a);

/* t may be NULL on a dry run. ST_NOMEM (logged). */
status exchange_new(struct transport *t, int n_ranks, struct exchange **out);
void exchange_free(struct exchange *e); /* NULL is fine */
void exchange_serves(struct exchange *e, serve_request *serve, void *arg);

/* Buffers from the arena; nothing is under way. */
void outbox_lay(struct arena *a, struct outbox *b, size_t capacity);
/* A multicast's sends: ST_NOMEM (logged). Its buffer is laid if it is ever sent. */
status multicast_new(struct multicast *m, int n_ranks);
void multicast_lay(struct arena *a, struct multicast *m, size_t capacity);
void multicast_free(struct multicast *m);
/* Memory in which messages of `bytes` at most from one rank come together: lent to the transport, unless a slot holds
 * them. On a dry arena it is counted. */
status room_lay(struct exchange *e, struct arena *a, int from, int channel, size_t bytes);

/* Whether its last send was done when it was last seen to. */
static inline bool outbox_free(const struct outbox *b)
{
    return atomic_load_explicit(&b->send.done, memory_order_acquire);
}
/* Waits until the last send is done, serving meanwhile. */
status outbox_wait(struct exchange *e, struct outbox *b);
status outbox_send(struct exchange *e, struct outbox *b, int to, int kind, size_t size);
/* Whether its last send is done; makes progress, serves nothing. */
status outbox_sent(struct exchange *e, struct outbox *b, bool *done);
/* The same for a message to several ranks, before its buffer is written to. */
status multicast_wait(struct exchange *e, struct multicast *m);
status multicast_sent(struct exchange *e, struct multicast *m, bool *done);
/* Starts sending it to one of them. */
status multicast_send(struct exchange *e, struct multicast *m, int to, int kind, size_t size);
status exchange_release(struct exchange *e, struct arrival *a);

/* Serves what requests have arrived (and ends with ST_PEER at a FAILED), then looks for a message whose kind is in
 * `kinds`: *found, it is in *a and the caller's to release. */
status serve_or_find(struct exchange *e, uint32_t kinds, struct arrival *a, bool *found);
/* Serves what requests have arrived; nothing there: gives the processor away. For who waits for something else. */
status exchange_serve(void *exchange);
/* After a look that found nothing: gives the processor away, the longer the wait the more. */
void exchange_idle(struct exchange *e);
/* The same for who has no exchange yet. */
void be_idle(struct transport *t, unsigned *polls);

/* What follows has messages of so many bytes. Long ones move on while this rank computes: their sender, or whom they
 * are for, must lend a hand for every few slots of them (move_messages, with the exchange). */
void keep_moving(struct exchange *e, size_t bytes);
void move_messages(void *exchange);

#endif
