/* Loading: weights are repacked from the mapped file, on all threads; the file's pages are then let go. */
#ifndef HEARTH_DEVICE_CPU_LOAD_H
#define HEARTH_DEVICE_CPU_LOAD_H

#include "device/cpu/cpu.h"

struct loading {
    struct cpu *c;
    const struct device_loading *l;
};

/* So many bytes of the arena are filled in. */
void loading_done(struct loading *l, uint64_t bytes);
/* Says that rows [row, row + n) will be read, whole: before that is done. */
void loading_reads(struct loading *l, const struct matrix *from, int64_t row, int64_t n);
/* Rows [row, row + to->rows), columns [col, col + to->cols) of `from`. */
void load_slice(struct loading *l, struct packed *to, const struct matrix *from, int64_t row, int64_t col);
/* NULL: there is none. */
void load_vector(struct loading *l, float *to, const struct matrix *from);
/* Values [first, first + n) of a vector. */
void load_part(struct loading *l, float *to, const struct matrix *from, int64_t first, int64_t n);
/* Rows [row, row + n) as the file has them. */
void load_bytes(struct loading *l, uint8_t *to, const struct matrix *from, int64_t row, int64_t n);

#endif
