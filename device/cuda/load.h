/* Loading: weights are repacked from the mapped file into pinned memory, on all threads, in pieces; while one is copied
 * to the GPU the next is filled. The file's pages are then let go. */
#ifndef HEARTH_DEVICE_CUDA_LOAD_H
#define HEARTH_DEVICE_CUDA_LOAD_H

#include "device/cuda/cuda.h"
#include "device/loading.h"
#include "device/neuron_set.h"
#include "kernels/columns.h"
#include "kernels/rows.h"

struct loader {
    struct loading loading;
    struct cuda *c;
    struct load_buffer {
        uint8_t *at;                 /* host, pinned, of LOAD_BYTES */
        cudaEvent_t copied;
    } buffers[2];
    int turn;
    status failed;                   /* the first failure, logged; what comes after does nothing */
};

/* ST_NOMEM, ST_INTERNAL; logged. loader_close belongs to it in any case. */
status cuda_loader_open(struct loader *l, struct cuda *c, const struct device_loading *loading);
/* All is in place: ST_OK, or what has failed. */
status cuda_loader_close(struct loader *l);

/* Rows row + ids[i] (ids NULL: row + i), columns from col on. */
void cuda_load_packed(struct loader *l, const struct packed *to, const struct matrix *from, int64_t row, int64_t col,
                      const int32_t *ids);
void cuda_load_rows(struct loader *l, const struct neuron_rows *to, const struct matrix *from, const int32_t *ids);
/* set: the neurons whose columns they are. */
void cuda_load_columns(struct loader *l, const struct neuron_columns *to, const struct matrix *from,
                       const struct neuron_set *set);
/* Values [first, first + n) of a vector; to NULL: there is none. */
void cuda_load_part(struct loader *l, float *to, const struct matrix *from, int64_t first, int64_t n);
void cuda_load_vector(struct loader *l, float *to, const struct matrix *from);
/* Rows [row, row + n) as the file has them; to NULL: none are wanted. */
void cuda_load_bytes(struct loader *l, uint8_t *to, const struct matrix *from, int64_t row, int64_t n);
/* What is in the host's memory. */
void cuda_load_array(struct loader *l, void *to, const void *from, size_t bytes);

#endif
