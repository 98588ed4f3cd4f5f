/* The down projection of a set of neurons: all of a packed matrix, or only the columns of live neurons. The same bits
 * (kernels/columns.h). */
#ifndef HEARTH_DEVICE_CUDA_DOWN_H
#define HEARTH_DEVICE_CUDA_DOWN_H

#include "device/cuda/held.h"
#include "device/cuda/load.h"
#include "kernels/columns.h"

struct down {
    const struct held *held;         /* NULL: not here */
    bool by_column;                  /* the live neurons' columns are read, else all of the matrix */
    struct packed matrix;            /* [d, n] */
    struct neuron_columns columns;
    struct gpu_range *ranges;        /* [n_ranges] */
    int n_ranges;
};

/* dense: all of the matrix is read if that can be. */
void cuda_down_lay(struct cuda *c, int layer, const struct held *held, bool dense, struct down *d);
void cuda_down_load(struct loader *l, struct down *d, int layer);
/* sums = the part of the neurons whose activations are in h; add: += . */
void cuda_down_project(struct cuda *c, const struct down *d, const struct acts *h, uint32_t n,
                       const struct gpu_sums *sums, bool add);

#endif
