/* x of a step on its way from stage to stage. It goes with its step in HIDDEN, through memory of the host's that a GPU
 * and the network may both have pinned; or, where both stages have x on GPUs and the transport reaches from one to the
 * other (transport/nccl.h), the step goes in STEP and x in STATES from GPU to GPU. Either way in the order of the
 * steps. */
#ifndef HEARTH_WORKER_PASSAGE_H
#define HEARTH_WORKER_PASSAGE_H

#include "worker/rank.h"

struct passage;

/* ST_NOMEM (logged). */
status passage_new(struct rank *r, struct passage **out);
void passage_free(struct passage *p); /* NULL is fine */
status passage_lay(struct passage *p);
/* The devices are open, and the transport is connected: decides which way x goes. ST_PEER. */
status passage_open(struct passage *p);

/* A HIDDEN of the step and x. */
size_t passage_write(struct rank *r, const struct wire_step *step, uint8_t *out, size_t cap);
/* Whether passage_send would not wait for what was sent before; makes progress, serves nothing. */
status passage_ready(struct passage *p, bool *ready);
/* Sends the step and x to the next stage, when the home has computed it; serves meanwhile. */
status passage_send(struct passage *p, const struct wire_step *step);

/* Whether steps that come to this stage bring x with them: WIRE_HIDDEN. */
bool passage_is_hidden(const struct passage *p);
/* x = what came with the step (`hidden`), or comes behind it. ST_FORMAT (logged), ST_NAN. */
status passage_take(struct passage *p, const struct batch *b, const float *hidden);

#endif
