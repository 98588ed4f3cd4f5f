/* A stage's work: the layers of its range, from tokens or hidden states to hidden states or a result. */
#ifndef HEARTH_WORKER_STAGE_H
#define HEARTH_WORKER_STAGE_H

#include "worker/head.h"

struct stage;

/* ST_NOMEM (logged). */
status stage_new(struct rank *r, struct owners *owners, struct head *head, struct tables *tables, struct stage **out);
void stage_free(struct stage *s); /* NULL is fine */
status stage_lay(struct stage *s);

/* Runs the step that STEP or HIDDEN brings. */
status stage_run(struct stage *s, struct arrival *a);
/* Waits until everything is gone that others still need of the last step. */
status stage_settle(struct stage *s);

#endif
