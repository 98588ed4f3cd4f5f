/* Whether ranks hold the same file: a hash of every chunk of 64 MiB that somebody loads from. The hashes are remembered
 * in a folder of the user's by what the system says of the file (device, inode, size, times), so they are made once.
 *
 * Chunks are numbered through all parts of a split model. Not thread-safe. */
#ifndef HEARTH_MODEL_CHUNKS_H
#define HEARTH_MODEL_CHUNKS_H

#include <stdbool.h>
#include <stdint.h>
#include "base/status.h"
#include "base/threads.h"
#include "model/gguf.h"

#define CHUNK_BYTES ((uint64_t)64 << 20)

struct chunks;

/* Nothing is hashed yet; what `folder` remembers of the file is known. folder NULL: nothing is, nor will be. Whatever
 * is wrong with a remembered list, it is as if there were none. g and folder are borrowed. ST_NOMEM (logged). */
status chunks_create(const struct gguf *g, const char *folder, struct chunks **out);
void chunks_free(struct chunks *c); /* NULL is fine */

uint32_t chunks_count(const struct chunks *c);
/* Says that [data, data + bytes) will be loaded: the chunks of the file that these bytes lie in are used, and hashed
 * now, on all threads of `pool`, unless they are known. Bytes that are none of the file's are nobody's. */
void chunks_use(struct chunks *c, struct pool *pool, const uint8_t *data, uint64_t bytes);
bool chunks_used(const struct chunks *c, uint32_t chunk);
/* The hash, never 0; made now if it is not known. */
uint64_t chunks_hash(struct chunks *c, struct pool *pool, uint32_t chunk);
/* Where a chunk lies: bytes [*begin, *end) of the file at the path that is returned. */
const char *chunks_place(const struct chunks *c, uint32_t chunk, uint64_t *begin, uint64_t *end);
/* Bytes hashed since chunks_create: none where all was remembered. */
uint64_t chunks_hashed(const struct chunks *c);
/* Writes what was learnt into the folder. That it cannot is no error: it is learnt again next time. */
void chunks_remember(struct chunks *c);

#endif
