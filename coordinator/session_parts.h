/* What the files of a session share: session.c runs turns, session_ranks.c talks to the ranks besides. */
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
    uint64_t n_queries;             /* of usage, asked of every rank, so far */
};

/* Lets the own worker run; gives the processor away when it had nothing to do for long. */
status session_pump(struct session *s);
/* Waits for the steps that are under way for nobody. */
status session_drain(struct session *s);

#endif
