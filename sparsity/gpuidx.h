/* PowerInfer's split file, MODEL.generated.gpuidx: which neurons its solver put on the GPU (Song et al., PowerInfer,
 * 2024). A GGUF file with the magic PWRI, general.architecture "generic.gpu_index", and for each layer an I32 array
 * blk.N.gpu_idx [d_ff] of 0 and 1 and, in most files, the ids of the ones in rising order, blk.N.gpu_bucket.
 *
 * Nothing in the file says which model it was made for; only its dimensions can be compared. Immutable after loading,
 * so all readers are thread-safe. */
#ifndef HEARTH_SPARSITY_GPUIDX_H
#define HEARTH_SPARSITY_GPUIDX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/status.h"
#include "model/model.h"

struct gpuidx_layer {
    const int32_t *on_gpu; /* [d_ff] 1: hot, on the GPU; 0: cold. Into the file */
    int64_t n_on_gpu;
};

struct gpuidx {
    struct gguf *file;     /* owned */
    int n_layers;
    int64_t d_ff;
    uint64_t vram_bytes;   /* that the split was made for, 0: not said */
    struct gpuidx_layer *layers; /* [n_layers] */
};

/* Reads and checks a split file. model NULL: whichever it was made for. ST_IO, ST_FORMAT (malformed, wrong shapes or
 * values), ST_UNSUPPORTED (a file for mixtures of experts), ST_MISMATCH (a model of other dimensions), ST_NOMEM; all
 * logged. */
status gpuidx_load(const char *path, const struct model *model, struct gpuidx **out);
/* The same over bytes in memory, not copied, aligned to 8; for tests and fuzzing. */
status gpuidx_parse(const uint8_t *bytes, size_t n, const char *where, const struct model *model, struct gpuidx **out);
void gpuidx_free(struct gpuidx *x); /* NULL is fine */

/* Whether an open file says that it is a split file. */
bool gpuidx_is_file(const struct gguf *g);

#endif
