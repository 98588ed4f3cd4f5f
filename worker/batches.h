/* From a message's runs to what devices run: they lie on the pages that the step's changes, and those before, have
 * given their sequences. One table of pages serves all layers and stages of a rank (worker/page_tables.h). */
#ifndef HEARTH_WORKER_BATCHES_H
#define HEARTH_WORKER_BATCHES_H

#include "worker/rank.h"

struct batches;

/* ST_NOMEM (logged). */
status batches_new(struct rank *r, struct batches **out);
void batches_free(struct batches *b); /* NULL is fine */
void batches_lay(struct batches *b);

/* Carries out the step's changes of tables, unless that was done, and makes a batch of its runs, of n_tokens tokens
 * together. It points into the tables and into memory of its own, one for each use. ST_FORMAT (logged) if a change
 * leaves a gap in a table, or a run is beyond its sequence's pages or not where its state is. */
status batches_take(struct batches *b, enum device_use use, const struct wire_step *s, struct batch *out);

#endif
