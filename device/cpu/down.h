/* The down projection of a set of neurons: all of a packed matrix, or only the columns of live neurons. The same bits
 * (kernels/columns.h). */
#ifndef HEARTH_DEVICE_CPU_DOWN_H
#define HEARTH_DEVICE_CPU_DOWN_H

#include "device/cpu/load.h"
#include "device/cpu/neuron_set.h"
#include "kernels/columns.h"

struct down {
    const struct neuron_set *set;    /* NULL: not here */
    bool by_column;                  /* the live neurons' columns are read, else all of the matrix */
    struct packed matrix;            /* [d, n] */
    struct neuron_columns columns;
};

/* dense: all of the matrix is read if that can be. */
void down_lay(struct cpu *c, int layer, const struct neuron_set *set, bool dense, struct down *d);
void down_load(struct loading *l, struct down *d, int layer);
/* sum[n, d] = the part of the neurons whose activations are in h. */
void down_project(struct cpu *c, const struct down *d, const struct acts *h, uint32_t n, double *sum);

#endif
