/* What the verbs transport is made of; only for transport/verbs*.c. */
#ifndef HEARTH_TRANSPORT_VERBS_INTERNAL_H
#define HEARTH_TRANSPORT_VERBS_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>
#include "base/log.h"
#include "transport/pieces.h"
#include "transport/transport.h"
#include "transport/verbs.h"
#include "transport/verbs_calls.h"

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

/* What an immediate value says. */
struct word {
    int channel;    /* whose slots are given back */
    unsigned freed; /* bit i: slot i of them */
    int kind;       /* of the message, or enum control */
    int slot;       /* of its channel, where it lies */
    bool more;      /* another piece follows */
    bool control;
    uint16_t sequence;
};

enum control { CONTROL_CREDITS, CONTROL_LEAVE, CONTROL_ABANDON };

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

struct region {
    const uint8_t *start;
    size_t bytes;
    struct ibv_mr *mr;
};

struct verbs_port {
    struct ibv_context *context;
    char name[64];
    uint8_t number;
    bool ethernet;             /* RoCE, else InfiniBand */
    bool global;               /* packets carry GIDs */
    uint16_t lid;
    int gid_index, gid_type, family;
    union ibv_gid gid;
    int mtu;                   /* bytes */
    char about[160];
};

struct verbs_transport {
    struct transport base;     /* first: a transport is its verbs_transport */
    struct transport_config config;
    uint32_t kinds[TRANSPORT_CHANNELS]; /* of each channel */
    struct verbs_options options;
    const struct verbs_calls *calls;
    struct verbs_gather gather;
    struct verbs_port port;
    struct ibv_pd *pd;
    struct ibv_comp_channel *channel;
    struct ibv_cq *cq;
    uint8_t *addresses;        /* our own and, behind it, those of all ranks */
    uint8_t *memory;           /* of all rings, and the bounces behind them */
    uint8_t *bounces;          /* [BOUNCES, TRANSPORT_SLOT], and NOTICE_BYTES of our own last word */
    struct ibv_mr *bounces_mr;
    uint32_t bounces_free;     /* bit for each */
    struct region regions[MAX_REGIONS];
    int n_regions;
    size_t max_inline;         /* bytes */
    struct peer *peers;        /* [n_ranks] */
    int turn;                  /* the peer whose messages the next poll looks at first */
    int n_waiting;             /* messages, pieces in slots and refusals that a poll may find */
    int n_queued;              /* sends with pieces that are not posted */
    unsigned looks;            /* at the completion queue, for the heart */
    uint64_t n_completed;      /* work requests, for idle */
    double beat_s;             /* when the heart was last looked at */
    unsigned n_events;         /* not yet acknowledged */
    bool connected, closing;
    bool failed;               /* every operation is ST_PEER */
    char why[LOG_LINE_MAX];    /* the first failure */
};

/* Logs an error in one line and keeps it in v->why. */
void verbs_error(struct verbs_transport *v, const char *format, ...) __attribute__((format(printf, 2, 3)));

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

/* verbs_device.c: the port and GID that the options ask for. */
status verbs_port_open(struct verbs_transport *v);
void verbs_port_close(struct verbs_transport *v);

/* verbs_connect.c: rings, connections. What connecting needs is there before: who cannot tell the others that it failed
 * would leave them waiting. */
uint8_t *verbs_new_addresses(int n_ranks);
status verbs_connect(struct verbs_transport *v);
void verbs_disconnect(struct verbs_transport *v); /* frees all that connect made; fine after half of it */
void verbs_break(struct verbs_transport *v);      /* no connection moves another byte */

/* verbs_word.c */
uint32_t word_encode(const struct word *w);
struct word word_decode(uint32_t bits);

/* verbs_send.c: what goes out. `verbs_push` posts as much as there are slots for. */
status verbs_push(struct verbs_transport *v, struct peer *p);
status verbs_push_all(struct verbs_transport *v);
status verbs_control(struct verbs_transport *v, struct peer *p, enum control what, size_t notice_bytes);
status verbs_post_beat(struct verbs_transport *v, struct peer *p);
status verbs_pay_credits(struct verbs_transport *v); /* to those who would wait for them */
void verbs_cancel_sends(struct verbs_transport *v);

/* verbs_progress.c: what completes and what comes in. */
status verbs_progress(struct verbs_transport *v);
void verbs_complete_send(struct verbs_transport *v, struct peer *p, uint64_t id);
void verbs_free_slot(struct peer *p, int index); /* index: channel * TRANSPORT_SLOTS + slot */
status verbs_post_receives(struct verbs_transport *v, struct peer *p);

/* verbs_take.c: what a poll finds. ST_FORMAT if that is refused. */
status verbs_take(struct verbs_transport *v, uint32_t kinds, struct arrival *a, bool *found);
void verbs_give_back(struct verbs_transport *v, const struct arrival *a);
void verbs_assemble(struct verbs_transport *v, struct peer *p, struct lane *l);

/* verbs_alive.c: heartbeats, and the end. */
status verbs_beat(struct verbs_transport *v);
/* A peer cannot be reached: logs it, tells the others, cancels everything. Returns ST_PEER. */
status verbs_lost(struct verbs_transport *v, struct peer *p, const char *what);
/* A peer has said that it is going for good. Returns ST_PEER. */
status verbs_abandoned(struct verbs_transport *v, struct peer *p, size_t notice_bytes);
/* Ends this endpoint for good: tells every peer why, waits a moment for what is under way, and cancels the rest. */
void verbs_quit(struct verbs_transport *v, const char *why);
/* The short name of a work completion's error. */
const char *verbs_what_failed(const struct ibv_wc *wc);

#endif
