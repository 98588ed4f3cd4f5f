/* Tensor element types, numbered as GGUF numbers them, and how their blocks are sized. Thread-safe. */
#ifndef HEARTH_BASE_DTYPE_H
#define HEARTH_BASE_DTYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum dtype {
    DT_F32 = 0,
    DT_F16 = 1,
    DT_Q4_0 = 2,
    DT_Q4_1 = 3,
    DT_Q5_0 = 6,
    DT_Q5_1 = 7,
    DT_Q8_0 = 8,
    DT_Q2_K = 10,
    DT_Q3_K = 11,
    DT_Q4_K = 12,
    DT_Q5_K = 13,
    DT_Q6_K = 14,
    DT_IQ2_XXS = 16,
    DT_IQ2_XS = 17,
    DT_IQ3_XXS = 18,
    DT_IQ1_S = 19,
    DT_IQ4_NL = 20,
    DT_IQ3_S = 21,
    DT_IQ2_S = 22,
    DT_IQ4_XS = 23,
    DT_I8 = 24,
    DT_I16 = 25,
    DT_I32 = 26,
    DT_I64 = 27,
    DT_F64 = 28,
    DT_IQ1_M = 29,
    DT_BF16 = 30,
    DT_TQ1_0 = 34,
    DT_TQ2_0 = 35,
    DT_MXFP4 = 39,
};

/* A product whose columns may be cut over ranks (the FFN's down projection, its columns being neurons) is summed in
 * segments of this many columns: cuts lie between segments. How: kernels/kernels.h, SEGMENT_GRID. */
enum { SUM_SEGMENT = 128 };

/* Whether hearth can size the type at all (a tensor of another type makes a file unreadable). */
bool dtype_known(uint32_t type);
/* Whether weights may have the type (F32, F16, BF16 and the quantised ones). */
bool dtype_is_weight(uint32_t type);
/* "Q4_K"; for a type that hearth does not know its GGUF name if it has one, else "?". */
const char *dtype_name(uint32_t type);
/* Elements in one block (1, 32 or 256); 0 if unknown. */
int dtype_block(uint32_t type);
/* Bytes of one block; 0 if unknown. */
int dtype_block_bytes(uint32_t type);
/* Bytes of a row of `n` elements, n a multiple of the block. */
size_t dtype_row_bytes(uint32_t type, int64_t n);

#endif
