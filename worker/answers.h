/* An owner's work for whoever asks: its heads' part of a layer's attention, its neurons' of an FFN, or its rows of the
 * output matrix. */
#ifndef HEARTH_WORKER_ANSWERS_H
#define HEARTH_WORKER_ANSWERS_H

#include "worker/batches.h"

struct answers;

/* ST_NOMEM (logged). */
status answers_new(struct rank *r, struct batches *batches, struct answers **out);
void answers_free(struct answers *s); /* NULL is fine */
status answers_lay(struct answers *s);

/* Serves a request; arg: the answers. What is wrong with it costs nobody else anything, but on rank 0. */
serve_request answers_serve;
/* Sends the last stage what this rank has of the logits of home's in[USE_OWN], unasked. */
status answers_send_logits(struct answers *s, uint64_t step, const struct work *w);

#endif
