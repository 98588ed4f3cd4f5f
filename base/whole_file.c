#include "base/whole_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/log.h"
#include "base/replacement.h"

status whole_file_map(const char *path, struct whole_file *out)
{
    struct stat info;
    void *bytes = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    const bool known = fd >= 0 && fstat(fd, &info) == 0;
    if (known && S_ISREG(info.st_mode) && info.st_size > 0)
        bytes = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (!bytes || bytes == MAP_FAILED) {
        const char *why = !known || bytes         ? strerror(errno)
                          : S_ISREG(info.st_mode) ? "it is empty"
                          : S_ISDIR(info.st_mode) ? "it is a folder"
                                                  : "it is no regular file";
        log_error("cannot read %s: %s", path, why);
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

status whole_file_write(const char *path, const void *bytes, size_t n)
{
    struct replacement r;
    status s = replacement_open(path, &r);
    if (s != ST_OK)
        return s;
    mode_t mask = umask(0);
    umask(mask);
    return replacement_close(&r, replacement_write(&r, bytes, n), 0666 & ~mask);
}

status whole_file_can_write(const char *path)
{
    struct replacement r;
    struct stat info;
    if (stat(path, &info) == 0 && S_ISDIR(info.st_mode)) {
        log_error("%s: cannot write: it is a folder", path);
        return ST_IO;
    }
    status s = replacement_open(path, &r);
    if (s == ST_OK)
        (void)replacement_close(&r, ST_CANCELLED, 0); /* which deletes it */
    return s;
}
