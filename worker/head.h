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
/* A step of the last layer, as its tokens [b->n_tokens] came; sends RESULT. Where another rank is the home: the logits
 * of the own rows, if the step wants any, to the home. */
status head_run(struct head *h, const struct wire_step *s, const struct batch *b);
/* Takes SAMPLING, and answers an empty RESULT of step 0. */
status head_take_sampling(struct head *h, struct arrival *a);
/* Whether the coordinator, who runs on this rank's thread, has yet to take a result: no step may begin then, for it
 * would wait within for what can be taken only when it is over. */
bool head_owes_result(const struct head *h);

#endif
