/* A list: magic, version, the file's identity (5 u64), n (u64), hashes (n u64), and a checksum (u64) of all before; all
 * little-endian. */
#include "model/chunk_list.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/bytes.h"
#include "base/log.h"
#include "base/replacement.h"

enum { VERSION = 1, HEAD = 8 + 5 * 8 + 8, CHECKSUM = 8 };

static size_t list_bytes(uint32_t n) { return HEAD + 8 * (size_t)n + CHECKSUM; }

/* malloc'ed; NULL: no memory. */
static char *list_path(const char *folder, const struct gguf_identity *id)
{
    char *path = NULL;
    return asprintf(&path, "%s/%" PRIx64 "-%" PRIx64 ".chunks", folder, id->device, id->inode) < 0 ? NULL : path;
}

static void write_head(struct writer *w, const struct gguf_identity *id, uint32_t n)
{
    memcpy(write_bytes(w, 4), "HCHK", 4);
    write_u32(w, VERSION);
    write_u64(w, id->device);
    write_u64(w, id->inode);
    write_u64(w, id->size);
    write_u64(w, id->modified_ns);
    write_u64(w, id->changed_ns);
    write_u64(w, n);
}

/* All of a file that must have so many bytes. */
static bool read_whole(const char *path, uint8_t *out, size_t bytes)
{
    struct stat info;
    size_t done = 0;
    ssize_t got = 1;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
    bool fits = fd >= 0 && fstat(fd, &info) == 0 && S_ISREG(info.st_mode) && (uint64_t)info.st_size == bytes;
    while (fits && done < bytes && got > 0) {
        got = read(fd, out + done, bytes - done);
        done += got > 0 ? (size_t)got : 0;
    }
    if (fd >= 0)
        close(fd);
    return fits && done == bytes;
}

void chunk_list_read(const char *folder, const struct gguf_identity *id, uint64_t *hash, uint32_t n)
{
    const size_t bytes = list_bytes(n);
    char *path = list_path(folder, id);
    uint8_t *list = malloc(bytes), head[HEAD];
    write_head(&(struct writer){head, head + HEAD, false}, id, n);
    if (path && list && read_whole(path, list, bytes) && !memcmp(list, head, HEAD)) {
        struct reader r = {list + HEAD, list + bytes, false};
        struct reader checksum = {list + bytes - CHECKSUM, list + bytes, false};
        const bool whole = read_u64(&checksum) == XXH3_64bits(list, bytes - CHECKSUM);
        for (uint32_t i = 0; whole && i < n; i++) {
            const uint64_t remembered = read_u64(&r);
            hash[i] = hash[i] ? hash[i] : remembered;
        }
    }
    free(list);
    free(path);
}

void chunk_list_write(const char *folder, const struct gguf_identity *id, const uint64_t *hash, uint32_t n)
{
    const size_t bytes = list_bytes(n);
    char *path = list_path(folder, id);
    uint8_t *list = malloc(bytes);
    struct replacement file;
    struct log_catcher quiet;
    log_catch(&quiet);
    if (path && list && replacement_open(path, &file) == ST_OK) {
        struct writer w = {list, list + bytes, false};
        write_head(&w, id, n);
        for (uint32_t i = 0; i < n; i++)
            write_u64(&w, hash[i]);
        write_u64(&w, XXH3_64bits(list, bytes - CHECKSUM));
        (void)replacement_close(&file, replacement_write(&file, list, bytes), 0600);
    }
    log_catch(NULL);
    free(list);
    free(path);
}
