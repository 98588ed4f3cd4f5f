/* The down projection of a set of neurons: all of a packed matrix, or only the columns of live neurons. The same bits
 * (kernels/columns.h). */
#ifndef HEARTH_DEVICE_DOWN_H
#define HEARTH_DEVICE_DOWN_H

#include "device/lay.h"
#include "device/loading.h"
#include "device/neuron_set.h"
#include "kernels/columns.h"

struct down {
    const struct neuron_set *set;    /* NULL: not here */
    bool by_column;                  /* the live neurons' columns are read, else all of the matrix */
    struct packed matrix;            /* [d, n] */
    struct neuron_columns columns;
};

/* dense: all of the matrix is read if that can be. */
void down_lay(const struct laying *to, const struct bundle *of, const struct neuron_set *set, bool dense,
              struct down *d);
void down_load(struct loading *l, struct down *d, const struct bundle *of);

/* Whether a matrix can take the place of these columns. */
static inline bool down_may_pack(const struct down *d) { return d->set && d->set->whole && !d->columns.transposed; }

/* Columns of the activations that it reads. */
static inline int64_t down_slots(const struct down *d, const struct neuron_set *set)
{
    return d->set && !d->by_column ? set->n : set->n_blocks * ACT_BLOCK;
}

#endif
