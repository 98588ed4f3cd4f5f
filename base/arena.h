/* A bump allocator on huge pages, sized once at load. Not thread-safe.
 *
 * An arena without memory ("dry") only counts: running the same layout code on a dry arena first gives the exact size
 * of the real one, which is how memory is computed before anything is loaded. */
#ifndef HEARTH_BASE_ARENA_H
#define HEARTH_BASE_ARENA_H

#include <stddef.h>
#include <stdbool.h>
#include "base/status.h"

enum { ARENA_ALIGN = 64 };

struct arena {
    unsigned char *base; /* NULL while dry */
    size_t size;         /* bytes mapped */
    size_t used;         /* bytes handed out, each piece rounded up to ARENA_ALIGN */
};

/* Makes `a` dry: arena_alloc then only counts. */
void arena_dry(struct arena *a);
/* Maps `size` zeroed bytes (transparent huge pages where the system has them). ST_NOMEM (logged) if that fails. */
status arena_map(struct arena *a, size_t size);
/* Returns `size` bytes aligned to ARENA_ALIGN, zeroed. Dry: counts and returns NULL. A real arena that is too small
 * returns NULL as well: the caller's dry run makes that a bug, not an input error. */
void *arena_alloc(struct arena *a, size_t size);
/* Returns the pages to the system; `a` is dry afterwards. */
void arena_unmap(struct arena *a);

#endif
