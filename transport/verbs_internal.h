/* What the verbs transport is made of; only for transport/verbs*.c. Its parts stand on each other in the order of this
 * page, the last at the top. Status codes are ST_PEER once a peer is lost: then verbs.c ends it all. */
#ifndef HEARTH_TRANSPORT_VERBS_INTERNAL_H
#define HEARTH_TRANSPORT_VERBS_INTERNAL_H

#include "base/log.h"
#include "transport/transport.h"
#include "transport/verbs.h"
#include "transport/verbs_calls.h"
#include "transport/verbs_peer.h"
#include "transport/verbs_word.h"

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
    bool told;                 /* the peers know of the failure */
    char why[LOG_LINE_MAX];    /* the first failure */
};

/* ---- verbs_peer.c: what all stand on ---- */

/* Logs an error in one line and keeps it in v->why. */
void verbs_error(struct verbs_transport *v, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A peer cannot be reached: logs it. Returns ST_PEER. */
status verbs_lost(struct verbs_transport *v, struct peer *p, const char *what);
void verbs_free_slot(struct peer *p, int index); /* index: channel * TRANSPORT_SLOTS + slot */
void verbs_complete_send(struct verbs_transport *v, struct peer *p, uint64_t id);
/* Says that every send is done: its memory is the caller's. Nothing moves any more. */
void verbs_cancel_sends(struct verbs_transport *v);

/* ---- verbs_device.c: the port and GID that the options ask for ---- */

status verbs_port_open(struct verbs_transport *v);
void verbs_port_close(struct verbs_transport *v);

/* ---- verbs_send.c: what is posted ---- */

/* Posts as much as there are slots for. */
status verbs_push(struct verbs_transport *v, struct peer *p);
status verbs_push_all(struct verbs_transport *v);
status verbs_control(struct verbs_transport *v, struct peer *p, enum control what, size_t notice_bytes);
status verbs_post_beat(struct verbs_transport *v, struct peer *p);
status verbs_pay_credits(struct verbs_transport *v); /* to those who would wait for them */
/* Posts again the receives that arrivals have used up. */
status verbs_post_receives(struct verbs_transport *v, struct peer *p);

/* ---- verbs_connect.c: rings, connections ---- */

/* What connecting needs is there before: who cannot tell the others that it failed would leave them waiting. */
uint8_t *verbs_new_addresses(int n_ranks);
status verbs_connect(struct verbs_transport *v);
void verbs_disconnect(struct verbs_transport *v); /* frees all that connect made; fine after half of it */
void verbs_break(struct verbs_transport *v);      /* no connection moves another byte */

/* ---- verbs_alive.c: heartbeats, and the end ---- */

status verbs_beat(struct verbs_transport *v);
/* Ends this endpoint for good: tells every peer why, waits a moment for what is under way, and cancels the rest.
 * Nothing if it has ended. */
void verbs_quit(struct verbs_transport *v, const char *why);
/* The short name of a work completion's error. */
const char *verbs_what_failed(const struct ibv_wc *wc);

/* ---- verbs_take.c: what a poll finds. ST_FORMAT if that is refused ---- */

status verbs_take(struct verbs_transport *v, uint32_t kinds, struct arrival *a, bool *found);
void verbs_give_back(struct verbs_transport *v, const struct arrival *a);
void verbs_assemble(struct verbs_transport *v, struct peer *p, struct lane *l);

/* ---- verbs_progress.c: what completes and what comes in ---- */

status verbs_progress(struct verbs_transport *v);

#endif
