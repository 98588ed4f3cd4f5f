/* Single neurons' rows and columns as a packed matrix: the very bytes that packed_fill would have made of the
 * file's. */
#ifndef HEARTH_KERNELS_REPACK_H
#define HEARTH_KERNELS_REPACK_H

#include <stdint.h>
#include "kernels/columns.h"
#include "kernels/kernels.h"
#include "kernels/rows.h"

/* Fills groups [group_begin, group_end) of m, which has the shape of `from`, whose rows are not parted in planes. Their
 * memory may not overlap. */
void repack_rows(struct packed *m, int64_t group_begin, int64_t group_end, const struct neuron_rows *from);
/* Fills the groups of the outputs [row_begin, row_end), a multiple of COLUMN_TILE (or the end), of m, which has the
 * shape of `from`. That is not transposed, and its neurons are one range that begins and ends where the file's blocks
 * do (a K type's super-blocks), or with the matrix. */
void repack_columns(struct packed *m, int64_t row_begin, int64_t row_end, const struct neuron_columns *from);

#endif
