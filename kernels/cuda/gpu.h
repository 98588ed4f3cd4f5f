/* What all launches of kernels share. Each header of this folder lists the launches of one family of kernels; a launch
 * is put into the GPU's stream and returns at once. The arrays that they take lie in the GPU's memory, unless the
 * comment says "host". A launch reads its arguments before it returns, allocates nothing and waits for nothing, so that
 * it can be recorded as a part of a CUDA graph: what changes from step to step (positions, tables, how many neurons
 * fire) is read from the GPU's memory. What goes wrong shows in cudaGetLastError.
 *
 * Every kernel gives the bits of the scalar table (kernels/kernels.h says what each operation computes). Weights lie as
 * they do for the CPU (kernels/layout.h, row_layout.h, column_layout.h): 16 rows side by side are what a half-warp
 * reads at once, and what a tensor core takes as a tile. */
#ifndef HEARTH_KERNELS_CUDA_GPU_H
#define HEARTH_KERNELS_CUDA_GPU_H

#include <stdbool.h>
#include <stdint.h>
#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

struct gpu {
    cudaStream_t stream;
    int n_sms;           /* multiprocessors */
    int capability;      /* 10 * major + minor */
    int products;        /* enum gpu_products: to measure and to test one of the kernels; 0: the fastest */
};

/* Where it is noted that values are no numbers: *first becomes the least of order << 32 | index, so the earliest
 * operation's first value. All ones: nothing has been found. */
struct gpu_fault {
    unsigned long long *first; /* NULL: nobody wants to know */
    uint32_t order;      /* of this operation in the step */
};

/* Partial sums of a block, [n, d] in units of 2^-30 (kernels.h, SEGMENT_GRID): whole numbers, which add in any order.
 * broken[t] is not 0: a sum of token t is no number, or not below 2^31. */
struct gpu_sums {
    long long *units;    /* [n, d] */
    uint32_t *broken;    /* [n] */
};

/* What a launch clears besides its work, for those that follow: a launch of its own would take longer. {0}: nothing. */
struct gpu_clearing {
    struct gpu_sums sums;
    int64_t n_units, n_broken;
    float *h;            /* activations, of which only some will be written */
    int64_t n_h;
};

#ifdef __cplusplus
}
#endif

#endif
