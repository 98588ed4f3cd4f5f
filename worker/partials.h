/* Parts of a block in messages: partial sums, or live activations where the stage has the down projection. */
#ifndef HEARTH_WORKER_PARTIALS_H
#define HEARTH_WORKER_PARTIALS_H

#include "worker/owners.h"

struct partials;

/* ST_NOMEM (logged). */
status partials_new(struct rank *r, struct owners *owners, struct partials **out);
void partials_free(struct partials *p); /* NULL is fine */
void partials_lay(struct partials *p);

/* Adds an owner's PARTIAL, or what its ACTIVE makes, to home's sums[USE_OWN]. arg: the partials. */
take_answer take_partial, take_active;
/* The bytes in a PARTIAL. */
struct sum_bytes partial_bytes(const struct wire_partial *p);
/* Writes home's sums[use] as a PARTIAL of which id, part, layer, n_tokens and counts are set; the work for it began at
 * begin_ns. Returns its size. */
size_t partial_write(struct rank *r, struct wire_partial *p, enum device_use use, uint64_t begin_ns, uint8_t *out,
                     size_t cap);

#endif
