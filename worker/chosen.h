/* Whose logits are computed together: tokens of a step's runs, in their order, as many as a LOGITS message may have.
 * Every rank that has rows of the output matrix chooses the same. Pure. */
#ifndef HEARTH_WORKER_CHOSEN_H
#define HEARTH_WORKER_CHOSEN_H

#include "worker/rank.h"

enum { CHOSEN_MOST = WIRE_LOGIT_TOKENS };

struct chosen {
    struct task t;                /* n tokens of DEVICE_OUTPUT; 0: there are no more */
    uint32_t tokens[CHOSEN_MOST]; /* which of the batch */
    struct {
        uint32_t run, place;      /* the token is the run's place-th */
    } of[CHOSEN_MOST];
    uint32_t run, place, first;   /* where to go on; the run's first token is the batch's `first` */
};

/* None yet. */
void chosen_begin(struct chosen *c, const struct wire_step *s, const struct batch *b);
/* The next of those after which a token is drawn, or, `scored`, of those whose successor is scored. False: none. */
bool chosen_next(struct chosen *c, bool scored);

#endif
