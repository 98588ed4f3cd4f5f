/* The angles by which a batch's queries and keys turn (struct rope in model/model.h): the same for all layers of a step
 * that have the same rope. */
#ifndef HEARTH_DEVICE_CPU_ANGLES_H
#define HEARTH_DEVICE_CPU_ANGLES_H

#include "device/cpu/cpu.h"
#include "device/loading.h"

/* By one rope. */
struct angles {
    double *freq;       /* [n_rot / 2] */
    uint32_t n;         /* tokens of a batch that have angles */
    uint32_t *position; /* [n_batch] theirs */
    float *cos_sin;     /* [n_batch, n_rot] */
};

/* Memory that the arena does not have. ST_NOMEM (logged). */
status angles_new(const struct cpu *c, struct angles a[MODEL_ROPES]);
void angles_free(struct angles a[MODEL_ROPES]); /* zeros are fine */
void angles_lay(struct cpu *c, struct angles a[MODEL_ROPES]);
void angles_load(const struct cpu *c, struct loading *l, struct angles a[MODEL_ROPES]);
/* Those of a work's batch by its layer's rope; NULL: nothing turns. */
const struct angles *angles_of(const struct cpu *c, struct angles a[MODEL_ROPES], const struct work *w);

#endif
