/* After the last layer: the final norm, the logits, and what the step wants of them. */
#ifndef HEARTH_WORKER_HEAD_H
#define HEARTH_WORKER_HEAD_H

#include "worker/answers.h"
#include "worker/owners.h"

struct head;

/* ST_NOMEM (logged). */
status head_new(struct rank *r, struct owners *owners, struct answers *answers, struct head **out);
void head_free(struct head *h); /* NULL is fine */
void head_lay(struct head *h);
/* Its beginning, before any layer: the samplers. ST_FORMAT (logged). */
status head_begin(struct head *h, const struct wire_step *s);
/* The end of a step, whose runs are the batch's; sends RESULT. Where another rank is the home: the logits of the own
 * rows, if the step wants any, to the home. */
status head_run(struct head *h, const struct wire_step *s, const struct batch *b);
/* Whether the coordinator has yet to take a result. */
bool head_owes_result(const struct head *h);

#endif
