/* A peer as the verbs transport sees it: its ring of slots and ours, and what is under way; only for
 * transport/verbs*. */
#ifndef HEARTH_TRANSPORT_VERBS_PEER_H
#define HEARTH_TRANSPORT_VERBS_PEER_H

#include <infiniband/verbs.h>
#include <stdbool.h>
#include <stdint.h>
#include "transport/pieces.h"
#include "transport/transport.h"

enum {
    RING_SLOTS = TRANSPORT_CHANNELS * TRANSPORT_SLOTS, /* of one peer and direction; bits of a uint32_t */
    NOTICE_BYTES = 512,           /* behind a ring's slots: why a rank has gone */
    RING_BYTES = RING_SLOTS * TRANSPORT_SLOT + 4096,
    BOUNCES = 8,                  /* slots for messages from memory that is not registered */
    MAX_REGIONS = 16,
    MAX_INLINE = 512,             /* asked for; a device may give less */
    /* Work requests that may be under way on one connection. Sends: a write into every slot, credits for every channel,
     * a heartbeat, two last words. Receives: a write into every slot, and credits, each message of which frees at least
     * one: so a receiver that is not looking is still never found without a receive. */
    SENDS = RING_SLOTS + TRANSPORT_CHANNELS + 3,
    RECEIVE_BATCH = 8,            /* receives posted together */
    RECEIVES = 2 * RING_SLOTS + 2 + RECEIVE_BATCH
};

_Static_assert(TRANSPORT_SLOTS == 4 && TRANSPORT_CHANNELS <= 8 && TRANSPORT_KINDS == 32,
               "they share an immediate value");
_Static_assert(RING_SLOTS <= 32, "slots are bits of a word");

/* What a completed work request was (wr_id). */
enum work { WORK_WRITE, WORK_CREDITS, WORK_BEAT, WORK_LAST, WORK_RECEIVE };

/* A piece that has arrived in a slot. */
struct piece {
    uint8_t slot, kind;
    bool more;
    uint32_t size;
};

/* One channel to and from one peer. */
struct lane {
    struct send *out, **last;             /* sends of which pieces are not yet posted */
    struct piece pieces[TRANSPORT_SLOTS]; /* arrived, in order: n of them from `first` on */
    uint8_t first, n;
    struct assembly big;
};

struct peer {
    int rank;
    struct ibv_qp *qp;         /* NULL: this rank itself, or not connected */
    struct ibv_mr *mr;         /* of `slots` */
    uint8_t *slots;            /* [RING_BYTES] the peer writes here */
    uint64_t remote;           /* where this rank writes on the peer's side */
    uint32_t rkey;
    uint16_t sequence_out, sequence_in;
    /* Slots, bit channel * TRANSPORT_SLOTS + slot. Of the peer: */
    uint32_t vacant;           /* may be written */
    uint32_t writing;          /* our write is not completed: what it reads must stay */
    struct send *writes[RING_SLOTS]; /* what is written there, NULL: a copy */
    int8_t bounces[RING_SLOTS];      /* where the copy lies, -1: nowhere */
    /* and of our own: */
    uint32_t filled;           /* the peer has written it and it is not released */
    uint32_t freed;            /* released, and the peer does not know */
    struct lane lanes[TRANSPORT_CHANNELS];
    int n_receives;            /* used up and not yet posted again */
    int n_credits, n_beats, n_last; /* under way: messages that give credits, heartbeats, last words */
    bool leaving;              /* we have said LEAVE */
    bool left;                 /* the peer has said LEAVE */
    bool lost;                 /* it can no longer be reached */
    /* The heart: completions since the last look, and for how long nothing has (a) been under way, (b) come back. */
    unsigned completed;
    double idle_s, stalled_s;
};

/* Whether the peer's card has yet to acknowledge something. */
static inline bool peer_owes_answer(const struct peer *p)
{
    return p->writing || p->n_credits || p->n_beats || p->n_last;
}
static inline uint64_t work_id(enum work work, int rank, int slot)
{
    return (uint64_t)work << 48 | (uint64_t)rank << 16 | (uint64_t)slot;
}
/* Nothing listens to a rank that has left; a lost one cannot hear. */
static inline bool peer_is_there(const struct peer *p) { return p->qp && !p->left && !p->lost; }

#endif
