/* What the files of a session share: session_usage.c takes what ranks say of themselves, session.c runs turns,
 * session_ranks.c talks to the ranks besides. */
#ifndef HEARTH_COORDINATOR_SESSION_PARTS_H
#define HEARTH_COORDINATOR_SESSION_PARTS_H

#include "coordinator/session.h"
#include "placement/plan.h"

/* A step's message. */
struct parcel {
    uint8_t *buffer;
    struct send send;
    bool on_its_way; /* the transport has not yet said that it is sent */
};

/* What a rank said of its time, and the size of the message. */
struct said {
    struct wire_usage usage;
    size_t bytes;
};

struct session {
    struct session_options o;
    struct schedule *schedule;
    struct messages *messages;
    struct parcel *parcels;         /* [n_steps] a step's is that of its id modulo n_steps */
    uint32_t n_steps;               /* under way at most */
    size_t step_max;                /* bytes of each */
    bool broken;                    /* an operation failed: the ranks' state is unknown */
    struct arrival result;          /* of the oldest step, held while its events are told */
    const struct step *told;        /* that step; NULL: none is being told */
    uint32_t next_run;              /* of it, the next to be told of */
    struct session_answer *answers; /* [n_sequences] */
    struct sequence *asked;         /* has a token that is not answered yet */
    unsigned idle;                  /* times that nothing has happened since something did */
    struct wire_counts counts;      /* since the last reset */
    uint8_t *long_result;           /* lent to the transport; NULL: a slot holds every result */
    struct send queries[PLAN_MAX_RANKS]; /* one to each rank */
    struct said said[PLAN_MAX_RANKS];    /* in answer to the last query */
    uint64_t awaited;               /* ranks that have not answered it, a bit each */
    uint64_t n_queries;             /* asked of every rank, and answered by all, so far */
};

/* Takes a rank's USAGE and releases it. ST_FORMAT (logged): it is none, or nobody has asked. */
status session_take_usage(struct session *s, struct arrival *a);

/* Lets the own worker run; gives the processor away when it had nothing to do for long. */
status session_pump(struct session *s);
/* Waits for the steps that are under way for nobody, and for what ranks were asked. */
status session_drain(struct session *s);

#endif
