/* What is remembered of a file's chunks: a file of its own for each file, named by device and inode. For model/
 * alone. */
#ifndef HEARTH_MODEL_CHUNK_LIST_H
#define HEARTH_MODEL_CHUNK_LIST_H

#include "model/gguf_parts.h"

/* Fills in those of hash [n] that are 0 from the list of this very file, if there is a whole one. */
void chunk_list_read(const char *folder, const struct gguf_identity *id, uint64_t *hash, uint32_t n);
/* Writes the list, 0 for what is not known, whole or not at all; in silence. */
void chunk_list_write(const char *folder, const struct gguf_identity *id, const uint64_t *hash, uint32_t n);

#endif
