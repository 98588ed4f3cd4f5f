/* The tokens of a batch as attention reads them: positions, page tables, angles of every rope. All layers of a step
 * have the same, so they are uploaded when they have changed. */
#ifndef HEARTH_DEVICE_CUDA_TABLES_H
#define HEARTH_DEVICE_CUDA_TABLES_H

#include "device/cuda/cuda.h"
#include "device/loading.h"
#include "kernels/cuda/attention.h"

struct tables;

/* ST_NOMEM (logged). */
status cuda_tables_new(struct cuda *c, struct tables **out);
void cuda_tables_free(struct tables *t); /* NULL is fine */
void cuda_tables_lay(struct tables *t);
void cuda_tables_load(struct tables *t, struct loading *l);
/* Puts a batch there, if it is not there yet. Returns its furthest position, plus one. */
uint32_t cuda_tables_upload(struct tables *t, const struct batch *b);
/* The batch that is there, of n tokens, for layers of one of hparams.rope or NO_ROPE; most: no position lies
 * further. */
struct gpu_batch cuda_tables_batch(const struct tables *t, int rope, int64_t n, uint32_t most);

#endif
