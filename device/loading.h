/* What loading tells whom. */
#ifndef HEARTH_DEVICE_LOADING_H
#define HEARTH_DEVICE_LOADING_H

#include "device/device.h"
#include "model/model.h"

struct loading {
    const struct device_options *o;
    const struct device_loading *l;
};

/* So many bytes of weights are in place. */
void loading_done(const struct loading *l, uint64_t bytes);
/* Says that rows [row, row + n) will be read, whole: before that is done. */
void loading_reads(const struct loading *l, const struct matrix *from, int64_t row, int64_t n);
/* The same of the rows of n neurons (ids NULL: the first n), and what lies between them. */
void loading_reads_neurons(const struct loading *l, const struct matrix *from, const int32_t *ids, int64_t n);

#endif
