/* Filling what neurons have from the file: rows ids[i] of it (ids NULL: the first ones), all of their columns. */
#ifndef HEARTH_DEVICE_CPU_FILL_H
#define HEARTH_DEVICE_CPU_FILL_H

#include "device/cpu/load.h"
#include "kernels/columns.h"
#include "kernels/rows.h"

void fill_packed(struct loading *l, struct packed *to, const struct matrix *from, const int32_t *ids);
void fill_rows(struct loading *l, struct neuron_rows *to, const struct matrix *from, const int32_t *ids);
/* Columns whose blocks are set; ids: the neurons, ascending, of a transposed matrix. */
void fill_columns(struct loading *l, struct neuron_columns *to, const struct matrix *from, const int32_t *ids);

#endif
