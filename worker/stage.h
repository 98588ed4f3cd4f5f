/* A stage's work: the layers of its range, from tokens or hidden states to hidden states or a result. */
#ifndef HEARTH_WORKER_STAGE_H
#define HEARTH_WORKER_STAGE_H

#include "worker/batches.h"
#include "worker/head.h"

struct stage;

/* ST_NOMEM (logged). */
status stage_new(struct rank *r, struct owners *owners, struct head *head, struct batches *batches, struct stage **out);
void stage_free(struct stage *s); /* NULL is fine */
status stage_lay(struct stage *s);
/* The devices are open. ST_PEER. */
status stage_open(struct stage *s);

/* Whether a step may begin. On rank 0, whose thread is the coordinator's too, not before what it would wait for at its
 * end is out of the way: that may take until the coordinator takes a result. */
status stage_ready(struct stage *s, bool *ready);
/* Runs the step that STEP or HIDDEN brings. */
status stage_run(struct stage *s, struct arrival *a);
/* Waits until everything is gone that others still need of the last step. */
status stage_settle(struct stage *s);

#endif
