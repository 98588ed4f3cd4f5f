/* One table of operations that moves messages between the ranks of a cluster.
 *
 * A message has a sender, a kind (wire.h) and any number of bytes. Kinds travel in channels: messages of one channel
 * from one rank to another arrive in the order in which they were posted, and one that nobody wants yet holds up those
 * behind it; channels never hold up each other. Nothing on the way of a message blocks or allocates: a caller that must
 * wait polls, and serves what arrives meanwhile. A rank may send to itself.
 *
 * A message lies where its sender wrote it until it is sent, and is read where the transport put it: in one of the
 * slots of TRANSPORT_SLOT bytes that an endpoint keeps for every peer and channel, or (inproc) where it was written. A
 * message longer than a slot travels in pieces and is put together in memory that the receiver lent for it.
 *
 * One thread per endpoint. Failure of a peer: every operation returns ST_PEER from then on (logged once, naming the
 * rank). Sends under way are then cancelled, their memory is the caller's again; what it holds of others is released.
 * The endpoint can then only be closed. */
#ifndef HEARTH_TRANSPORT_TRANSPORT_H
#define HEARTH_TRANSPORT_TRANSPORT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>
#include "base/status.h"

enum {
    TRANSPORT_KINDS = 32,    /* kinds are 0 .. 31 */
    TRANSPORT_CHANNELS = 5,
    TRANSPORT_SLOT = 65536,  /* bytes of a slot: what is longer travels in pieces */
    TRANSPORT_SLOTS = 4,     /* per peer, channel and direction */
    TRANSPORT_NAP_NS = 100000, /* of who has nothing to sleep on */
    TRANSPORT_ALIGN = 64     /* messages begin on a multiple of it where they are sent from and where they are read */
};

/* What an endpoint is opened with; the same on every rank. */
struct transport_config {
    uint8_t channel[TRANSPORT_KINDS]; /* of each kind, below TRANSPORT_CHANNELS */
    /* mpi alone calls it, where this rank can neither go on nor leave in order and no peer would ever hear of it: it
     * abandons, or closes after a failure. It ends the process and so the job; what it has not ended can only be closed
     * (without it: NULL), and MPI is in no state to finish. */
    void (*end_job)(void);
};

/* A send under way; the caller's memory, as is the message: both stay untouched until transport_sent() says true or an
 * operation ST_PEER. So both lie in what is freed after close, unless their function waits for that and does nothing
 * else (transport/deliver.h). */
struct send {
    _Atomic bool done;
    /* the rest belongs to the transport */
    const void *data;
    size_t size, at;
    int from, to, kind;
    unsigned in_flight;
    struct send *next, *previous;
    void *request[2];
};

/* A message that has arrived, whole. */
struct arrival {
    int from, kind;
    size_t size;
    void *data;      /* where it lies, until it is released; only to be read: it may be the sender's own memory */
    /* verbs and inproc: its sender, if it is broken or hostile, can write to it until then; never to size or kind, nor
     * to lent memory. So whoever checks what lies there checks a copy of its own (wire/wire.h does). */
    void *handle[2]; /* the transport's */
};

/* What an endpoint has posted to other ranks so far; a message in pieces is one. Read by its own thread. */
struct transport_counts {
    uint64_t messages, bytes;
};

struct transport;

struct transport_ops {
    const char *name;
    /* Meets the other ranks: every rank calls it once, before anything else. May block and allocate: slots, addresses.
     * ST_PEER if one of them is missing; ST_NOMEM, ST_INTERNAL. */
    status (*connect)(struct transport *t);
    /* Says that messages will be posted from here, so that a network card may read them where they lie; a message from
     * elsewhere costs a copy where the transport needs one. Stays the caller's, and where it is until close. May
     * block. */
    status (*register_memory)(struct transport *t, void *memory, size_t bytes);
    /* Lends memory in which messages of one channel from one rank are put together if they are longer than a slot; the
     * caller's again after close. It takes the place of what was lent before. Without it, and for a longer one, such a
     * message is refused: a poll for its kind returns ST_FORMAT (logged, naming the rank), it is thrown away, and all
     * else goes on. One such message of a channel at a time: the next waits until it is released. */
    status (*lend)(struct transport *t, int from, int channel, void *memory, size_t bytes);
    /* Starts sending. `s` and `data` stay as they are until sent. */
    status (*post)(struct transport *t, int to, int kind, const void *data, size_t size, struct send *s);
    /* Whether `s` is finished; makes progress. ST_PEER if it never will be. */
    status (*sent)(struct transport *t, struct send *s, bool *done);
    /* Looks for a whole message whose kind is in `kinds` (bit k for kind k; none: only makes progress, and what is held
     * stays readable whatever comes back). *found false: none now. Returns at once. Several arrivals may be held at a
     * time: who holds TRANSPORT_SLOTS of a channel from one rank gets no more of these until it releases one. */
    status (*poll)(struct transport *t, uint32_t kinds, struct arrival *a, bool *found);
    /* Gives a message's place back. In any order. */
    status (*release)(struct transport *t, struct arrival *a);
    /* Sleeps until something may have arrived, or a moment (below a tenth of a second): for who has polled in vain for
     * long. NULL: there is nothing to sleep on. */
    void (*idle)(struct transport *t);
    /* Says that this rank is going for good: peers get ST_PEER, with `why` logged on their side where the transport
     * can carry it; mpi, which cannot, calls config.end_job. Sends under way are cancelled: their memory is the
     * caller's again; what it holds is released. Used on errors only. */
    void (*abandon)(struct transport *t, const char *why);
    /* Frees the endpoint and releases what it holds; sends still under way are completed or cancelled (a message that
     * matters is waited for with sent), and messages that reach it from now on are thrown away: their sends are done.
     * mpi and verbs wait here until every rank has come to its close, inproc until nobody reads what this rank
     * wrote. */
    void (*close)(struct transport *t);
};

struct transport {
    const struct transport_ops *ops;
    int rank, n_ranks;
    size_t slot_bytes; /* memory of this endpoint's slots, allocated by connect */
    struct transport_counts counts;
};

static inline status transport_connect(struct transport *t) { return t->ops->connect(t); }
static inline status transport_register(struct transport *t, void *memory, size_t bytes)
{
    return t->ops->register_memory(t, memory, bytes);
}
static inline status transport_lend(struct transport *t, int from, int channel, void *memory, size_t bytes)
{
    return t->ops->lend(t, from, channel, memory, bytes);
}
static inline status transport_post(struct transport *t, int to, int kind, const void *data, size_t size,
                                    struct send *s)
{
    if (to != t->rank) {
        t->counts.messages++;
        t->counts.bytes += size;
    }
    return t->ops->post(t, to, kind, data, size, s);
}
static inline status transport_sent(struct transport *t, struct send *s, bool *done)
{
    return t->ops->sent(t, s, done);
}
static inline status transport_poll(struct transport *t, uint32_t kinds, struct arrival *a, bool *found)
{
    return t->ops->poll(t, kinds, a, found);
}
static inline status transport_release(struct transport *t, struct arrival *a) { return t->ops->release(t, a); }
static inline void transport_idle(struct transport *t)
{
    if (t->ops->idle)
        t->ops->idle(t);
    else
        nanosleep(&(struct timespec){.tv_nsec = TRANSPORT_NAP_NS}, NULL);
}
static inline void transport_abandon(struct transport *t, const char *why) { t->ops->abandon(t, why); }
static inline void transport_close(struct transport *t)
{
    if (t)
        t->ops->close(t);
}

/* inproc: n_ranks endpoints of one process, one thread each. Endpoints may be closed in any order, by any thread that
 * holds no message of theirs on behalf of another endpoint. */
status transport_inproc_open(const struct transport_config *c, int n_ranks, struct transport **out /* [n_ranks] */);

/* mpi: the endpoint of this process. Every rank calls it, as often as every other; the first call starts MPI
 * (MPI_Init_thread, FUNNELED: the calling thread makes every later call). ST_INTERNAL if MPI fails; ST_UNSUPPORTED
 * where hearth is built without it (no_mpi.c). */
status transport_mpi_open(const struct transport_config *c, struct transport **out);
/* Starts MPI as well; this process's place among those that mpirun started, 0 of 0 where hearth is built without
 * MPI. */
status transport_mpi_world(int *rank, int *n_ranks);
/* Every process gives `bytes`, the same number, and gets those of all in the order of their ranks. Blocks. ST_PEER. */
status transport_mpi_gather(void *unused, const void *mine, size_t bytes, void *all);
/* Ends MPI if it was started; the process's last call here, when every endpoint is closed. */
void transport_mpi_finish(void);
/* Which MPI this is, at any time: "Open MPI v4.1.4"; "" where hearth is built without. */
void transport_mpi_name(char *out, size_t n);

#endif
