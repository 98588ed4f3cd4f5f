/* What goes between the host's memory and the GPU's, through pinned memory, which alone the GPU reads and writes
 * without the host's help. */
#ifndef HEARTH_DEVICE_CUDA_STAGING_H
#define HEARTH_DEVICE_CUDA_STAGING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <cuda_runtime_api.h>
#include "base/status.h"

struct cuda;
struct notes;

enum { STAGED_PIECES = 64 };

/* Where a piece goes once it has come: host. */
struct staged_piece {
    void *to;
    const uint8_t *from;
    size_t bytes;
};

/* Half of a buffer: while it is copied the other is filled. */
struct staged {
    uint8_t *at;
    size_t used;
    cudaEvent_t done;                /* its copies */
    struct staged_piece piece[STAGED_PIECES]; /* of what comes from the GPU */
    int n;
};

struct staging {
    uint8_t *pinned;                 /* host, all of it */
    struct staged in[2], out[2];
    int in_turn, out_turn;
    struct notes *notes;             /* host: as they were at the last wait */
    uint8_t *messages;               /* host: memory of messages that was pinned, NULL: none */
    size_t messages_bytes;
};

/* ST_NOMEM, ST_INTERNAL; logged. c->notes_bytes is set. */
status staging_open(struct cuda *c);
void staging_close(struct cuda *c);

/* device.h: pin. */
void staging_pin(struct cuda *c, void *memory, size_t bytes);
/* to (the GPU's) = from (host), in the order of the stream. `from` is read before it returns. */
void upload(struct cuda *c, void *to, const void *from, size_t bytes);
/* The same of x; what lies in a message that is pinned goes without a copy: true, it must stay until a wait. */
bool upload_states(struct cuda *c, void *to, const void *from, size_t bytes);
/* to (host) = from (the GPU's): there when `await` returns, and not before. */
void download(struct cuda *c, void *to, const void *from, size_t bytes);
/* Waits until all that was begun is done; looks at what kernels have noted. */
void await(struct cuda *c);

#endif
