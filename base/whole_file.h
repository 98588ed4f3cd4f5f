/* Files that are read or written whole. */
#ifndef HEARTH_BASE_WHOLE_FILE_H
#define HEARTH_BASE_WHOLE_FILE_H

#include <stddef.h>
#include <stdint.h>
#include "base/status.h"

/* A file mapped read-only. */
struct whole_file {
    const uint8_t *bytes;
    size_t n;
};

/* ST_IO, logged. */
status whole_file_map(const char *path, struct whole_file *out);
void whole_file_unmap(struct whole_file *f);

/* Writes the file whole or not at all: a temporary beside it is synced and renamed. ST_IO (a full disk), ST_NOMEM;
 * logged. */
status whole_file_write(const char *path, const void *bytes, size_t n);

/* Whether that can be done, for who works long before it does: nothing is left of the attempt. ST_IO, ST_NOMEM;
 * logged. */
status whole_file_can_write(const char *path);

#endif
