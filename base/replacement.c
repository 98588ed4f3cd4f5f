#include "base/replacement.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"

status replacement_failed(const struct replacement *r)
{
    log_error("%s: cannot write: %s", r->path, strerror(errno));
    return ST_IO;
}

status replacement_open(const char *path, struct replacement *out)
{
    static const char ending[] = ".XXXXXX"; /* mkostemp's */
    const size_t n = strlen(path);
    struct replacement r = {.path = path, .temporary = malloc(n + sizeof ending)};
    if (!r.temporary) {
        log_error("%s: no memory to write it", path);
        return ST_NOMEM;
    }
    memcpy(r.temporary, path, n);
    memcpy(r.temporary + n, ending, sizeof ending);
    r.fd = mkostemp(r.temporary, O_CLOEXEC);
    if (r.fd < 0) {
        status s = replacement_failed(&r);
        free(r.temporary);
        return s;
    }
    *out = r;
    return ST_OK;
}

status replacement_write(struct replacement *r, const void *bytes, size_t n)
{
    for (const uint8_t *at = bytes; n;) {
        ssize_t written = write(r->fd, at, n);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return replacement_failed(r);
        at += written;
        n -= (size_t)written;
    }
    return ST_OK;
}

/* The new name lasts only when the folder has been written too. A folder that cannot be synced is no reason to fail:
 * the file is there, whole. */
static void sync_folder(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *folder = slash == path ? strdup("/") : slash ? strndup(path, (size_t)(slash - path)) : strdup(".");
    int fd = folder ? open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (fd >= 0) {
        fsync(fd);
        close(fd);
    }
    free(folder);
}

status replacement_close(struct replacement *r, status so_far, mode_t permissions)
{
    status s = so_far;
    if (s == ST_OK && (fchmod(r->fd, permissions) != 0 || fsync(r->fd) != 0))
        s = replacement_failed(r);
    if (close(r->fd) != 0 && s == ST_OK)
        s = replacement_failed(r);
    if (s == ST_OK && rename(r->temporary, r->path) != 0)
        s = replacement_failed(r);
    if (s == ST_OK)
        sync_folder(r->path);
    else
        unlink(r->temporary);
    free(r->temporary);
    *r = (struct replacement){.fd = -1};
    return s;
}
