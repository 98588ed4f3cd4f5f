/* One table of operations that moves messages between the ranks of a cluster.
 *
 * A message has a sender, a kind (wire.h) and up to max_message bytes. Messages of one kind from one rank to another
 * arrive in the order they were sent; between kinds nothing is promised. Nothing blocks and nothing allocates: a
 * caller that must wait polls, and serves what arrives meanwhile. A rank may send to itself.
 *
 * One thread per endpoint. Failure of a peer: every operation returns ST_PEER from then on (logged once, naming the
 * rank), and sends under way are cancelled: their memory is the caller's again. The endpoint can then only be
 * destroyed. */
#ifndef HEARTH_TRANSPORT_TRANSPORT_H
#define HEARTH_TRANSPORT_TRANSPORT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/status.h"

enum { TRANSPORT_KINDS = 32 }; /* kinds are 0 .. 31 */

/* A send under way; the caller's memory, as is the message: both stay untouched until transport_sent() says true. */
struct send {
    _Atomic bool done;
    /* the rest belongs to the transport */
    const void *data;
    size_t size;
    int from, kind;
    struct send *next;
    void *request[2];
};

/* A message that has arrived and waits to be received. */
struct arrival {
    int from, kind;
    size_t size;
    void *handle[2]; /* the transport's */
};

struct transport;

struct transport_ops {
    const char *name;
    /* Starts sending. `s` and `data` stay as they are until sent. */
    status (*send)(struct transport *t, int to, int kind, const void *data, size_t size, struct send *s);
    /* Whether `s` is finished; makes progress. ST_PEER if it never will be. */
    status (*sent)(struct transport *t, struct send *s, bool *done);
    /* Looks for a message whose kind is in `kinds` (bit k for kind k). *found false: none now. Returns at once. A found
     * message must be received before the next poll. */
    status (*poll)(struct transport *t, uint32_t kinds, struct arrival *a, bool *found);
    /* Copies the message into buffer, which holds at least a->size bytes. */
    status (*receive)(struct transport *t, struct arrival *a, void *buffer);
    /* Says that this rank is going for good: peers get ST_PEER, with `why` logged on their side where the transport
     * can carry it. Sends under way are cancelled: their memory is the caller's again. Used on errors only. */
    void (*abandon)(struct transport *t, const char *why);
    /* Frees the endpoint; sends still under way are completed or cancelled (a message that matters is waited for with
     * sent), and messages that reach it from now on are thrown away: their sends are done. mpi waits here until every
     * rank has come to its destroy. */
    void (*destroy)(struct transport *t);
};

struct transport {
    const struct transport_ops *ops;
    int rank, n_ranks;
};

static inline status transport_send(struct transport *t, int to, int kind, const void *data, size_t size,
                                    struct send *s)
{
    return t->ops->send(t, to, kind, data, size, s);
}
static inline status transport_sent(struct transport *t, struct send *s, bool *done)
{
    return t->ops->sent(t, s, done);
}
static inline status transport_poll(struct transport *t, uint32_t kinds, struct arrival *a, bool *found)
{
    return t->ops->poll(t, kinds, a, found);
}
static inline status transport_receive(struct transport *t, struct arrival *a, void *buffer)
{
    return t->ops->receive(t, a, buffer);
}
static inline void transport_abandon(struct transport *t, const char *why) { t->ops->abandon(t, why); }
static inline void transport_destroy(struct transport *t)
{
    if (t)
        t->ops->destroy(t);
}

/* inproc: n_ranks endpoints of one process, one thread each. Endpoints may be destroyed in any order, by any thread. */
status transport_inproc_create(int n_ranks, struct transport **out /* [n_ranks] */);

/* mpi: the endpoint of this process. Every rank calls it, as often as every other; the first call starts MPI
 * (MPI_Init_thread, FUNNELED: the calling thread makes every later call). ST_INTERNAL if MPI fails. */
status transport_mpi_create(struct transport **out);
/* Ends MPI if it was started; the process's last call here, when every endpoint is destroyed. */
void transport_mpi_finish(void);
/* Whether this process was started by mpirun (or another launcher of MPI): the environment says so. */
bool transport_mpi_launched(void);

#endif
