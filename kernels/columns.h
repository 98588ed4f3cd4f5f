/* Neurons' columns of a down projection, each contiguous, so that only those of live neurons are read.
 *
 * In the file, 32 neurons of one output share a scale. Here the codes of a neuron lie together (all outputs), and so do
 * the scales of a block of 32 neurons: exactly the numbers of the file, without requantising. A product is summed as
 * matmul_partial sums it, so it has the same bits.
 *
 * A matrix may hold any neurons of a layer. Its blocks are the file's blocks of 32 that it holds a neuron of, in
 * ascending order; activations have a slot for each of the 32, and slots of neurons that it does not hold are zero. */
#ifndef HEARTH_KERNELS_COLUMNS_H
#define HEARTH_KERNELS_COLUMNS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/dtype.h"
#include "kernels/kernels.h"

enum { COLUMN_TILE = 128 }; /* outputs are computed in tiles of this many */

struct neuron_columns {
    enum dtype type;
    bool transposed;         /* PowerInfer's ffn_down_t: quantisation blocks run along the outputs, activations are
                              * f32 */
    int64_t rows;            /* outputs, d_model */
    int64_t n_columns;       /* neurons held */
    int64_t n_blocks;        /* blocks of 32 slots */
    int64_t n_supers;        /* K types: super-blocks that a block is held of; shape assumes the worst, n_blocks */
    const int32_t *block;    /* [n_blocks] ascending number of each block in the file; owned by an arena */
    const int32_t *column;   /* [n_blocks * 32] which held neuron a slot is, -1: none */
    size_t column_bytes, block_bytes, super_bytes; /* of a neuron's codes, a block's scales, a super-block's supers */
    uint8_t *codes;          /* [n_columns, column_bytes], aligned to 64, owned by an arena */
    uint8_t *scales;         /* [n_blocks, block_bytes], [n_supers, super_bytes]; aligned to 64 */
};

/* Fills in everything but the pointers. The caller may then lower n_supers to what there is. */
void neuron_columns_shape(struct neuron_columns *m, enum dtype type, bool transposed, int64_t rows, int64_t n_columns,
                          int64_t n_blocks);
size_t neuron_columns_code_bytes(const struct neuron_columns *m);
size_t neuron_columns_scale_bytes(const struct neuron_columns *m);
/* Stores the outputs [row_begin, row_end), a multiple of COLUMN_TILE (or the end), of all columns. `src` is the
 * tensor's first block: [rows, d_ff] of ffn_down, [d_ff, rows] of ffn_down_t; src_stride its bytes from row to row.
 * `block` and `column` are set; a held neuron's number in the file is block[slot / 32] * 32 + slot % 32. */
void neuron_columns_fill(struct neuron_columns *m, int64_t row_begin, int64_t row_end, const uint8_t *src,
                         size_t src_stride);

/* The table's operation on them (struct kernels): mix_columns. */

#endif
