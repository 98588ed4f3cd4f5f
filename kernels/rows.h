/* Neurons' rows of a gate or up projection, each contiguous, so that single ones can be read.
 *
 * A lane is a block of 32 columns here (in struct packed it is a row): 16 blocks side by side need no sum across lanes
 * until their products meet the row's accumulator, block by block in the order that matmul has. So a row's product has
 * the same bits in either layout.
 *
 * Bit-planes: a row may be stored in two parts, `top` with the scales and the top bits of each code, and `rest` with
 * the other bits. The top part alone gives an estimate of the product; both together give it exactly. Nothing is
 * stored twice. */
#ifndef HEARTH_KERNELS_ROWS_H
#define HEARTH_KERNELS_ROWS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/dtype.h"
#include "kernels/kernels.h"

enum {
    LANE_BLOCKS = 16,                    /* blocks side by side: a chunk */
    LANE_COLS = LANE_BLOCKS * ACT_BLOCK  /* columns of a chunk */
};

struct neuron_rows {
    enum dtype type;
    int64_t rows, cols;
    bool planes;                  /* stored in two parts; else all of a row is in its top part */
    size_t top_bytes, rest_bytes; /* of a row, multiples of 64 */
    uint8_t *top, *rest;          /* [rows, top_bytes], [rows, rest_bytes]; aligned to 64, owned by an arena */
};

/* Bits of a quantised code that are in the top part: 3 of Q8_0 and of the types with minima, 2 of the others. On a ReLU
 * model in Q8_0 a predictor from 2 bits cannot have recall and accuracy of 95 % at once, one from 3 bits can; on a SiLU
 * model in Q4_1 skipping half of the neurons by 2 bits costs 7 % of perplexity, by 3 bits 2 %. The types without minima
 * keep 2, being read least: the third bit is a quarter of a code of 4 bits, whose top part is half of it already. */
int dtype_top_bits(enum dtype type);
/* Whether a type's codes can be parted: quantised, with more bits than its top part has, and numbers themselves: the
 * top bits of numbers of a book's values say little. */
bool dtype_has_planes(enum dtype type);
/* Fills in everything but top and rest. `planes` only where the type has them. */
void neuron_rows_shape(struct neuron_rows *m, enum dtype type, int64_t rows, int64_t cols, bool planes);
/* Stores rows [row_begin, row_end): row i comes from src + ids[i] * src_stride in the file's layout (ids NULL: from
 * src + i * src_stride). */
void neuron_rows_fill(struct neuron_rows *m, int64_t row_begin, int64_t row_end, const uint8_t *src, size_t src_stride,
                      const int32_t *ids);

/* What dot_rows reads: activations with a block to a lane. Chunk k of 16 blocks has 8 words of 64 bytes; bytes 4i..4i+3
 * of word q are quad q (columns 4q..4q+3) of block 16k + i. The last chunk is filled up with zeros, as are the arrays
 * of sums and scales. */
struct lane_acts {
    int64_t cols;
    int64_t chunks;          /* ceil(cols / 512) */
    int8_t *codes;           /* [n_tokens, chunks * 512], aligned to 64; NULL: float weights only */
    float *scale;            /* [n_tokens, chunks * 16]; the fields of act_block */
    float *scaled_sum;
    int32_t *minus_sum, *minus_sum_low;
    const float *f32;        /* [n_tokens, cols], for float weights; borrowed */
};

/* Fills in cols and chunks; the arrays are the caller's. */
void lane_acts_shape(struct lane_acts *x, int64_t cols);
/* Values of `codes`, and of each other array, that a token takes. */
static inline int64_t lane_acts_codes(const struct lane_acts *x) { return x->chunks * LANE_COLS; }
static inline int64_t lane_acts_blocks(const struct lane_acts *x) { return x->chunks * LANE_BLOCKS; }

/* The `spread` of every table: it only moves words. Whoever has token 0 sets out->f32. */
void spread_acts(const struct acts *a, int64_t token_begin, int64_t token_end, struct lane_acts *out);

/* The table's operations on them (struct kernels): spread, dot_rows, estimate_rows. */

#endif
