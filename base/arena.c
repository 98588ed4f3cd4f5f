#include "base/arena.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "base/log.h"

enum { HUGE_PAGE = 2 << 20 };

void arena_dry(struct arena *a)
{
    *a = (struct arena){0};
}

status arena_map(struct arena *a, size_t size)
{
    /* Mapping a huge page more than needed lets the arena start on one. */
    size_t mapped = (size + 2 * HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    if (mapped < size) {
        log_error("arena: cannot reserve %zu bytes: the size overflows", size);
        return ST_NOMEM;
    }
    unsigned char *p = mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) {
        log_error("arena: cannot reserve %zu bytes of memory: %s", size, strerror(errno));
        return ST_NOMEM;
    }
    size_t head = (HUGE_PAGE - (size_t)p % HUGE_PAGE) % HUGE_PAGE;
    if (head)
        munmap(p, head);
    p += head;
    mapped -= head;
    madvise(p, mapped, MADV_HUGEPAGE); /* a hint: without it everything works, slower */
    *a = (struct arena){.base = p, .size = mapped};
    return ST_OK;
}

void *arena_alloc(struct arena *a, size_t size)
{
    size_t rounded = (size + ARENA_ALIGN - 1) / ARENA_ALIGN * ARENA_ALIGN;
    size_t at = a->used;
    if (a->base && rounded > a->size - at)
        return NULL;
    a->used += rounded;
    return a->base ? a->base + at : NULL;
}

void arena_unmap(struct arena *a)
{
    if (a->base)
        munmap(a->base, a->size);
    arena_dry(a);
}
