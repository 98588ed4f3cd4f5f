/* Loading: weights are repacked from the mapped file, on all threads; the file's pages are then let go. The host writes
 * what is loaded where it is to be, or, where a device's memory is its own, where the device takes it from. */
#ifndef HEARTH_DEVICE_LOADING_H
#define HEARTH_DEVICE_LOADING_H

#include "device/device.h"
#include "device/neuron_set.h"
#include "kernels/columns.h"
#include "kernels/rows.h"
#include "model/model.h"

struct loading;

/* How a device with a memory of its own takes what is loaded. */
struct taking {
    /* Where the host writes bytes that are to be at `to`. Sets l->failed (logged) if it has no place for them. */
    void *(*begin)(struct loading *l, void *to, size_t bytes);
    /* What was begun since the last call is written, unless l->failed is set. */
    void (*end)(struct loading *l);
    size_t most; /* bytes that are best begun at once */
};

struct loading {
    const struct device_options *o;
    const struct device_loading *l;
    const struct taking *taking; /* NULL: the device's memory is the host's */
    status failed;               /* the first failure, logged; what comes after does nothing */
};

/* Rows row + ids[i] (ids NULL: row + i), columns from col on. */
void load_packed(struct loading *l, const struct packed *to, const struct matrix *from, int64_t row, int64_t col,
                 const int32_t *ids);
/* Rows ids[i]. */
void load_rows(struct loading *l, const struct neuron_rows *to, const struct matrix *from, const int32_t *ids);
/* set: the neurons whose columns they are. */
void load_columns(struct loading *l, const struct neuron_columns *to, const struct matrix *from,
                  const struct neuron_set *set);

/* Of the following, to NULL: none are wanted. Values [first, first + n) of a vector: */
void load_part(struct loading *l, float *to, const struct matrix *from, int64_t first, int64_t n);
void load_vector(struct loading *l, float *to, const struct matrix *from);
/* Value ids[i] of a vector, n of them. */
void load_values(struct loading *l, float *to, const struct matrix *from, const int32_t *ids, int64_t n);
/* to[i] = from[ids[i]] * weight[ids[i]] of the set's neurons; from NULL: `otherwise` instead, weight NULL: 1. */
void load_picked(struct loading *l, float *to, const struct neuron_set *set, const float *from, float otherwise,
                 const float *weight);
/* Rows [row, row + n) as the file has them. */
void load_bytes(struct loading *l, uint8_t *to, const struct matrix *from, int64_t row, int64_t n);
/* What is in the host's memory. */
void load_array(struct loading *l, void *to, const void *from, size_t bytes);

/* Says that rows [row, row + n) will be read, whole: before that is done. */
void loading_reads(const struct loading *l, const struct matrix *from, int64_t row, int64_t n);

#endif
