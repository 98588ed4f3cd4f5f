/* Loading: weights are repacked from the mapped file, on all threads; the file's pages are then let go. */
#ifndef HEARTH_DEVICE_CPU_LOAD_H
#define HEARTH_DEVICE_CPU_LOAD_H

#include "device/cpu/cpu.h"
#include "device/loading.h"

/* Rows [row, row + to->rows), columns [col, col + to->cols) of `from`. */
void load_slice(struct loading *l, struct packed *to, const struct matrix *from, int64_t row, int64_t col);
/* NULL: there is none. */
void load_vector(struct loading *l, float *to, const struct matrix *from);
/* Values [first, first + n) of a vector. */
void load_part(struct loading *l, float *to, const struct matrix *from, int64_t first, int64_t n);
/* Rows [row, row + n) as the file has them. */
void load_bytes(struct loading *l, uint8_t *to, const struct matrix *from, int64_t row, int64_t n);

#endif
