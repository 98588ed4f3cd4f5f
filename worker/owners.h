/* Asking the owners of something that several ranks hold a part of, and waiting for their answers. */
#ifndef HEARTH_WORKER_OWNERS_H
#define HEARTH_WORKER_OWNERS_H

#include "worker/rank.h"

struct owners;

/* ST_NOMEM (logged). */
status owners_new(struct rank *r, struct owners **out);
void owners_free(struct owners *o); /* NULL is fine */
status owners_lay(struct owners *o);

/* An exchange begins with this rank's own part of it: from here on its time is taken. */
void owners_begin(struct owners *o);
/* When that was, as clock_ns has it. */
uint64_t owners_begun(const struct owners *o);
/* Starts sending the task's tokens of home's in[USE_OWN] to every other owner. */
status owners_ask(struct owners *o, const struct task *t);
/* Waits for their answers, messages of one kind, one from each other owner, and hands each to `take`, which releases
 * it; serves requests of other stages meanwhile. */
typedef status take_answer(void *arg, struct arrival *a, const struct task *t);
status owners_await(struct owners *o, const struct task *t, int kind, take_answer *take, void *arg);
/* What an owner has counted, and how long it took. */
void owners_count(struct owners *o, const struct wire_counts *counts, uint64_t busy_ns);

#endif
