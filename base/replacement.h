/* Writing a file whole or not at all: a temporary beside it is written, synced and renamed. Whatever fails, what was
 * there before stays and no half file is left. A replacement belongs to one thread. */
#ifndef HEARTH_BASE_REPLACEMENT_H
#define HEARTH_BASE_REPLACEMENT_H

#include <stddef.h>
#include <sys/types.h>
#include "base/status.h"

struct replacement {
    int fd;           /* of the temporary; for whoever must write into the middle */
    const char *path; /* borrowed */
    char *temporary;
};

/* Opens the temporary. ST_IO, ST_NOMEM (logged); there is then nothing to close. */
status replacement_open(const char *path, struct replacement *out);
/* Appends n bytes. ST_IO (logged). */
status replacement_write(struct replacement *r, const void *bytes, size_t n);
/* Ends it: if all went well so far (so_far is ST_OK) the file gets its permissions and its name, else the temporary is
 * removed. Returns so_far, or ST_IO (logged). */
status replacement_close(struct replacement *r, status so_far, mode_t permissions);
/* Logs "PATH: cannot write: " and what errno says. Returns ST_IO. */
status replacement_failed(const struct replacement *r);

#endif
