/* Loading: what is to be on the GPU is written into pinned memory, in pieces; while one is copied there the next is
 * filled. */
#ifndef HEARTH_DEVICE_CUDA_LOAD_H
#define HEARTH_DEVICE_CUDA_LOAD_H

#include "device/cuda/cuda.h"
#include "device/loading.h"

struct loader {
    struct loading loading;          /* first: whoever loads has one of these */
    struct cuda *c;
    struct load_buffer {
        uint8_t *at;                 /* host, pinned, of LOAD_BYTES */
        cudaEvent_t copied;
    } buffers[2];
    int turn;
    size_t used;                     /* bytes of the buffer whose turn it is */
    struct load_piece {
        void *to;
        uint8_t *from;
        size_t bytes;
        bool large;                  /* not in a buffer */
    } begun[2];
    int n_begun;
};

/* ST_NOMEM, ST_INTERNAL; logged. cuda_loader_close belongs to it in any case. */
status cuda_loader_open(struct loader *l, struct cuda *c, const struct device_loading *loading);
/* All is in place: ST_OK, or what has failed. */
status cuda_loader_close(struct loader *l);

#endif
