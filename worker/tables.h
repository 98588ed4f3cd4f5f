/* Which pages the sequences have, and how far each has been run. One table serves all layers and stages of a rank: it
 * only grows while a step of its sequence is under way. */
#ifndef HEARTH_WORKER_TABLES_H
#define HEARTH_WORKER_TABLES_H

#include "device/device.h"

struct tables;

/* Of one sequence, whose pages lie in order. ST_NOMEM (logged). */
status tables_new(int n_layers, uint32_t n_ctx, struct tables **out);
void tables_free(struct tables *t); /* NULL is fine */

/* A batch of a run of that sequence. It points into the tables. */
struct batch tables_batch(struct tables *t, struct run *run);
/* Positions that a layer has run; layer -1: a stage's steps. */
uint32_t tables_length(const struct tables *t, int layer);
/* It has run these tokens. */
void tables_ran(struct tables *t, int layer, const struct run *run);

#endif
