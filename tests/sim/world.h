/* The parts of the transport with delays: who runs, what time it is, and what is on its way. Everything here is under
 * the world's lock. */
#ifndef HEARTH_TESTS_SIM_WORLD_H
#define HEARTH_TESTS_SIM_WORLD_H

#include <pthread.h>

#include "tests/sim/delays.h"

#define NEVER UINT64_MAX

/* A message between its post and the moment at which both its sender and its receiver are done with it. */
struct parcel {
    struct send inner;   /* first: what the inner transport gets */
    struct send *outer;  /* the caller's; NULL: it was told that the message is sent */
    const void *data;
    void *copy;          /* NULL: it is read where its sender wrote it */
    size_t size;
    int from, to, kind;
    bool arrived;        /* the inner transport has it */
    uint64_t due, told;  /* when it may arrive; when its sender may learn that it is sent */
    struct parcel *next;
};

enum presence { ABSENT, PRESENT, LEAVING, GONE /* and closing */, CLOSED };

struct end {
    struct transport base; /* first: a transport is its end */
    struct world *world;
    struct transport *inner;
    pthread_cond_t turn;
    enum presence presence;
    uint64_t still_until;
    /* Since anything last happened: */
    unsigned vain;               /* polls that found nothing */
    uint32_t looked_for;         /* kinds */
    const struct parcel *sending; /* what it last saw was not yet sent */
};

struct world {
    pthread_mutex_t lock;
    struct delays d;
    uint64_t state, tick, wake; /* nothing moves before `wake` */
    bool stirred;               /* a message was posted or released: look before */
    bool free;                  /* a rank has failed: all run as they like */
    int n_ranks, n_present, n_open, turn;
    uint32_t n_posted;
    unsigned n_calls, n_vain;   /* of the transport; of these, the last ones while nothing could arrive */
    struct parcel *first, **last; /* in the order in which they were posted */
    uint8_t channel[TRANSPORT_KINDS];
    uint64_t *link_still;       /* [n_ranks, n_ranks] until when */
    bool *buffers;              /* [n_ranks, n_ranks] */
    bool *blocked;              /* [n_ranks, n_ranks, TRANSPORT_CHANNELS] by an earlier message; move_parcels' own */
    struct end ends[];          /* [n_ranks] */
};

struct world *world_create(const struct transport_config *c, int n_ranks, const struct delays *d);
void world_free(struct world *w);

/* True once in so many times; 0 .. most. */
static inline bool chance(struct world *w, uint32_t one_in) { return one_in && sim_below(&w->state, one_in) == 0; }
static inline uint64_t up_to(struct world *w, uint32_t most) { return most ? sim_below(&w->state, most + 1) : 0; }

/* Gives the turn away. */
void pass_turn(struct end *e);
/* The same, and comes back when it is this rank's again. False: a rank has failed, and all run as they like. */
bool take_turn(struct end *e);
/* From here on they do. */
void set_free(struct world *w);
/* Something did: whoever has looked in vain looks again. */
void happened(struct world *w);
/* Tells the sender that a message is sent: its memory is its own again. */
void tell(struct world *w, struct parcel *p);
/* Throws away what has not arrived of rank `from` (`to`); -1: any. */
void lose(struct world *w, int from, int to);

#endif
