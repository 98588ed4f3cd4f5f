/* How far the states of delta nets have come, which cannot go back: a run that is not where its state is would give
 * another text's words. Kept once for all layers of a rank, as the tables of pages are (worker/page_tables.h). Pure
 * logic, one thread. */
#ifndef HEARTH_WORKER_REACHED_H
#define HEARTH_WORKER_REACHED_H

#include "base/arena.h"
#include "wire/runs.h"

struct reached {
    uint32_t n_states;  /* 0: the model has no such nets */
    uint32_t *position; /* [n_states + 1] by number: the next token's */
    uint64_t step;      /* the newest whose runs are in */
};

/* Takes its memory from an arena; a dry one counts it. */
void reached_lay(struct reached *r, const struct wire_limits *lim, struct arena *a);
/* Moves the states of a step's decoded runs on, unless that was done. ST_FORMAT (logged) if a run begins elsewhere than
 * its state. */
status reached_run(struct reached *r, uint64_t step, const struct wire_run *runs, uint32_t n);

#endif
