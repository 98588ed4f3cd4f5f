/* Being done with a file: whether it is still what it was when it was opened, and giving it back. */
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "model/gguf_parts.h"

struct gguf_identity gguf_identity_of(const struct stat *st)
{
    const uint64_t second = 1000000000;
    return (struct gguf_identity){.device = st->st_dev,
                                  .inode = st->st_ino,
                                  .size = (uint64_t)st->st_size,
                                  .modified_ns = (uint64_t)st->st_mtim.tv_sec * second + (uint64_t)st->st_mtim.tv_nsec,
                                  .changed_ns = (uint64_t)st->st_ctim.tv_sec * second + (uint64_t)st->st_ctim.tv_nsec};
}

/* Another file under the same name leaves the mapped one whole. */
static status check_unchanged(const struct gguf_part *p)
{
    struct stat st;
    if (stat(p->path, &st) != 0)
        return ST_OK;
    const struct gguf_identity now = gguf_identity_of(&st), *then = &p->identity;
    if (now.device != then->device || now.inode != then->inode ||
        (now.size == then->size && now.modified_ns == then->modified_ns))
        return ST_OK;
    log_error("%s: it was changed while it was read (%" PRIu64 " bytes before, %" PRIu64 " now): start again when it "
              "is whole", p->path, then->size, now.size);
    return ST_IO;
}

status gguf_unchanged(const struct gguf *g)
{
    status s = ST_OK;
    for (int i = 0; i < g->n_parts && s == ST_OK; i++)
        if (g->parts[i].mapped && !g->parts[i].detached)
            s = check_unchanged(&g->parts[i]);
    return s;
}

static status no_memory(const struct gguf_part *p)
{
    log_error("%s: no memory for its header", p->path);
    return ST_NOMEM;
}

static status detach_part(struct gguf_part *p)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), header = (p->data_at + page - 1) / page * page;
    const size_t all = (p->size + page - 1) / page * page;
    uint8_t *place = (uint8_t *)(uintptr_t)p->bytes, *copy;
    copy = mmap(NULL, header, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (copy == MAP_FAILED)
        return no_memory(p);
    memcpy(copy, p->bytes, p->data_at);
    if (mremap(copy, header, header, MREMAP_MAYMOVE | MREMAP_FIXED, place) == MAP_FAILED) {
        munmap(copy, header);
        return no_memory(p);
    }
    /* Nobody may read the rest, and nothing else may come to lie there. */
    if (header < all && mmap(place + header, all - header, PROT_NONE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) == MAP_FAILED)
        return no_memory(p);
    p->detached = true;
    return ST_OK;
}

status gguf_detach(struct gguf *g)
{
    status s = gguf_unchanged(g);
    for (int i = 0; i < g->n_parts && s == ST_OK; i++)
        if (g->parts[i].mapped && !g->parts[i].detached)
            s = detach_part(&g->parts[i]);
    return s;
}
