/* What a choice says: tokens come from its job, pieces of text from them; those of a stream go to the form at once,
 * others are kept until the end. Of serve/reply*.c alone; the reply's lock is held. */
#ifndef HEARTH_SERVE_REPLY_CHOICE_H
#define HEARTH_SERVE_REPLY_CHOICE_H

#include "serve/reply.h"

/* Makes its answer; its reply, index and prompt are set. ST_NOMEM: it holds nothing. */
status reply_choice_create(struct choice *c);
/* A token of its prompt, if those have marks, in order from the second on. */
void reply_choice_read(struct choice *c, int32_t token, float log_p, const struct wire_top *tops, uint32_t n_tops);
/* A token of its job. False: the choice does not go on. */
bool reply_choice_hear(struct choice *c, int32_t token, float log_p, const struct wire_top *tops, uint32_t n_tops);
/* Its job is over; `why` of JOB_FAILED. */
void reply_choice_end(struct choice *c, enum job_end end, const char *why);
/* What it holds, not itself. */
void reply_choice_free(struct choice *c);

#endif
