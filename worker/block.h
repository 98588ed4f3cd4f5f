/* A block of a stage: x += part(norm(x)), the part being attention or the FFN. Its heads or neurons lie on many ranks.
 *
 * Where the residual stream has one home, x goes to the owners, this rank computes its own share meanwhile, and the
 * partial sums come back. Where all ranks have it, each computes its share of its own x and sends the sum to all
 * others. Both ways parts are added to the own one as they come: they are on a common grid (device.h, struct sums), so
 * their sum is exact, and neither their order nor where the plan cuts heads and neurons changes a bit. */
#ifndef HEARTH_WORKER_BLOCK_H
#define HEARTH_WORKER_BLOCK_H

#include "worker/owners.h"

struct blocks;

/* ST_NOMEM (logged). */
status blocks_new(struct rank *r, struct owners *owners, struct blocks **out);
void blocks_free(struct blocks *b); /* NULL is fine */
void blocks_lay(struct blocks *b);

/* Runs a block for the task's tokens. */
status block_run(struct blocks *b, const struct task *t);
/* Waits until the others have all parts that were sent to them. */
status blocks_settle(struct blocks *b);

#endif
