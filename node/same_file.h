/* Whether the ranks have loaded from the same file, on rank 0. */
#ifndef HEARTH_NODE_SAME_FILE_H
#define HEARTH_NODE_SAME_FILE_H

#include <stddef.h>
#include <stdint.h>
#include "base/status.h"
#include "base/threads.h"
#include "model/chunks.h"

/* What rank 0 compares the others' files by. Borrowed. */
struct same_file {
    struct chunks *chunks; /* of rank 0's file; NULL: they are not compared */
    struct pool *pool;     /* hashes what only others have loaded from */
    void (*progress)(void *arg, const char *what, uint64_t done, uint64_t total); /* of bytes; NULL: silent */
    void *progress_arg;
};

/* Compares what a CHUNKS message of `rank` says with rank 0's own file, which is hashed where it was not yet. *next, 0
 * at first, is the first chunk that the rank's next message may be about. ST_MISMATCH if a chunk differs, ST_FORMAT if
 * the message is broken (both logged). */
status same_file_check(const struct same_file *f, int rank, const uint8_t *message, size_t n, uint32_t *next);

#endif
