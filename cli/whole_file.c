#include "cli/whole_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>
#include "base/log.h"

status whole_file_map(const char *path, struct whole_file *out)
{
    struct stat info;
    void *bytes = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0 && fstat(fd, &info) == 0 && info.st_size > 0)
        bytes = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (fd < 0 || !bytes || bytes == MAP_FAILED) {
        log_error("cannot read %s: %s", path, fd >= 0 && !bytes ? "it is empty" : strerror(errno));
        if (fd >= 0)
            close(fd);
        return ST_IO;
    }
    close(fd);
    *out = (struct whole_file){.bytes = bytes, .n = (size_t)info.st_size};
    return ST_OK;
}

void whole_file_unmap(struct whole_file *f)
{
    if (f->bytes)
        munmap((void *)f->bytes, f->n);
    *f = (struct whole_file){0};
}

uint64_t whole_file_hash(const struct whole_file *f) { return XXH3_64bits(f->bytes, f->n); }

/* Every byte, or -1. */
static int write_all(int fd, const uint8_t *bytes, size_t n)
{
    while (n > 0) {
        ssize_t done = write(fd, bytes, n);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return -1;
        bytes += done;
        n -= (size_t)done;
    }
    return 0;
}

status whole_file_write(const char *path, const void *bytes, size_t n)
{
    char *temporary;
    if (asprintf(&temporary, "%s.XXXXXX", path) < 0) {
        log_error("no memory to write %s", path);
        return ST_NOMEM;
    }
    mode_t mask = umask(0);
    umask(mask);
    int fd = mkstemp(temporary);
    bool written = fd >= 0 && write_all(fd, bytes, n) == 0 && fchmod(fd, 0666 & ~mask) == 0 && fsync(fd) == 0;
    int error = errno;
    if (fd >= 0 && close(fd) != 0 && written) {
        written = false;
        error = errno;
    }
    if (written && rename(temporary, path) != 0) {
        written = false;
        error = errno;
    }
    if (!written) {
        log_error("cannot write %s: %s", path, strerror(error));
        if (fd >= 0)
            unlink(temporary);
    }
    free(temporary);
    return written ? ST_OK : ST_IO;
}
