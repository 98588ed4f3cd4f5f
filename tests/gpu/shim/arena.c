/* The GPU's memory: one stretch of addresses, each of which is given once. An allocation ends at a page that nobody may
 * touch, up to what aligns its begin to 256 bytes; what lies in its pages around it is looked at when it is freed, and
 * under AddressSanitizer nobody may touch that either. The host may touch none of it but in the course of a call.
 * Pinned memory is of the same kind, and open to both. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "tests/gpu/shim/shim.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(at, bytes) ((void)(at), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(at, bytes) ((void)(at), (void)(bytes))
#endif

#define PAGE ((size_t)4096)
#define ALIGNMENT ((size_t)256)
#define RESERVED ((size_t)1 << 38)

struct allocation {
    char *pages;       /* [page_bytes], then a page that is closed */
    size_t page_bytes, bytes;
    char *at;
    enum where where;
    int device;
    bool live;
};

static struct allocation *allocations; /* ascending in addresses; those that were freed stay */
static size_t n_allocations, room;
static struct {
    char *at;
    size_t bytes;
} registered[256];
static char *arena;
static size_t given;
static bool is_open;

static size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

static void protect(const struct allocation *a, int protection)
{
    if (mprotect(a->pages, a->page_bytes, protection))
        die("a part of the GPU's memory cannot be protected");
}

/* The last one at or below an address; NULL: none. */
static struct allocation *find(const void *p)
{
    size_t low = 0, high = n_allocations;
    while (low < high) {
        const size_t middle = (low + high) / 2;
        if (allocations[middle].pages <= (const char *)p)
            low = middle + 1;
        else
            high = middle;
    }
    return low ? &allocations[low - 1] : NULL;
}

static struct allocation *find_live(const void *p)
{
    struct allocation *a = find(p);
    return a && a->live && (const char *)p >= a->at && (size_t)((const char *)p - a->at) < a->bytes ? a : NULL;
}

/* ---- giving and taking ---- */

static struct allocation *new_allocation(size_t page_bytes)
{
    if (!arena) {
        arena = mmap(NULL, RESERVED, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (arena == MAP_FAILED)
            die("no addresses for the GPU's memory");
        given = PAGE;
    }
    if (n_allocations == room) {
        room = room ? 2 * room : 256;
        allocations = realloc(allocations, room * sizeof *allocations);
    }
    if (!allocations || page_bytes > RESERVED - given - PAGE)
        return NULL;
    struct allocation *a = &allocations[n_allocations++];
    *a = (struct allocation){.pages = arena + given, .page_bytes = page_bytes};
    given += page_bytes + PAGE;
    return a;
}

cudaError_t simt_arena_alloc(enum where where, int device, size_t bytes, void **p)
{
    struct allocation *a = new_allocation(round_up(bytes, PAGE));
    if (!a)
        return cudaErrorMemoryAllocation;
    a->at = a->pages + a->page_bytes - round_up(bytes, ALIGNMENT);
    a->bytes = bytes;
    a->where = where;
    a->device = device;
    a->live = true;
    protect(a, PROT_READ | PROT_WRITE);
    fill_with_nan(a->pages, a->page_bytes);
    ASAN_POISON_MEMORY_REGION(a->pages, a->page_bytes);
    ASAN_UNPOISON_MEMORY_REGION(a->at, a->bytes);
    if (where == ON_DEVICE && !is_open)
        protect(a, PROT_NONE);
    *p = a->at;
    return cudaSuccess;
}

cudaError_t arena_free(enum where where, void *p)
{
    struct allocation *a = find_live(p);
    if (!a || a->at != p || a->where != where)
        return cudaErrorInvalidValue;
    const char *end = a->at + a->bytes;
    protect(a, PROT_READ);
    if (!filled_with_nan(a->pages, (size_t)(a->at - a->pages)))
        die("bytes before an allocation of %zu bytes were written to", a->bytes);
    if (!filled_with_nan(end, (size_t)(a->pages + a->page_bytes - end)))
        die("bytes behind an allocation of %zu bytes were written to", a->bytes);
    a->live = false;
    protect(a, PROT_NONE);
    madvise(a->pages, a->page_bytes, MADV_DONTNEED);
    return cudaSuccess;
}

size_t arena_used(int device)
{
    size_t used = 0;
    for (size_t i = 0; i < n_allocations; i++)
        if (allocations[i].live && allocations[i].where == ON_DEVICE && allocations[i].device == device)
            used += round_up(allocations[i].bytes, ALIGNMENT);
    return used;
}

/* ---- pinned by the host itself ---- */

enum { MOST_REGISTERED = sizeof registered / sizeof *registered };

static int find_registered(const void *p)
{
    for (int i = 0; i < MOST_REGISTERED; i++)
        if ((uintptr_t)p - (uintptr_t)registered[i].at < registered[i].bytes)
            return i;
    return -1;
}

cudaError_t arena_register(void *p, size_t bytes)
{
    if (find_registered(p) >= 0 || find_live(p))
        return cudaErrorHostMemoryAlreadyRegistered;
    for (int i = 0; i < MOST_REGISTERED; i++)
        if (!registered[i].bytes) {
            registered[i].at = p;
            registered[i].bytes = bytes;
            return cudaSuccess;
        }
    return cudaErrorMemoryAllocation;
}

cudaError_t arena_unregister(void *p)
{
    const int i = find_registered(p);
    if (i < 0 || registered[i].at != p)
        return cudaErrorHostMemoryNotRegistered;
    registered[i].bytes = 0;
    return cudaSuccess;
}

/* ---- who may touch what ---- */

enum where arena_where(const void *p)
{
    const uintptr_t offset = (uintptr_t)p - (uintptr_t)arena;
    if (!arena || offset >= RESERVED)
        return find_registered(p) >= 0 ? PINNED : PAGEABLE;
    const struct allocation *a = find(p);
    return a ? a->where : ON_DEVICE;
}

bool arena_holds(const void *p, size_t bytes)
{
    if ((uintptr_t)p - (uintptr_t)arena >= RESERVED)
        return true;
    const struct allocation *a = find_live(p);
    return a && bytes <= a->bytes - (size_t)((const char *)p - a->at);
}

size_t arena_reserved(void) { return RESERVED; }

size_t arena_offset(const void *at)
{
    const uintptr_t offset = (uintptr_t)at - (uintptr_t)arena;
    return arena && offset < RESERVED ? offset : SIZE_MAX;
}

static void protect_all(int protection)
{
    for (size_t i = 0; i < n_allocations; i++)
        if (allocations[i].live && allocations[i].where == ON_DEVICE)
            protect(&allocations[i], protection);
}

void arena_open(void)
{
    if (!is_open)
        protect_all(PROT_READ | PROT_WRITE);
    is_open = true;
}

void arena_close(void)
{
    if (is_open)
        protect_all(PROT_NONE);
    is_open = false;
}

bool arena_explain(const void *p, char *text, size_t size)
{
    if (!arena || (uintptr_t)p - (uintptr_t)arena >= RESERVED)
        return false;
    const struct allocation *a = find(p);
    if (!a)
        snprintf(text, size, "%p lies before all of the GPU's memory", p);
    else if (!a->live)
        snprintf(text, size, "%p lies in %zu bytes that were freed", p, a->bytes);
    else if ((const char *)p < a->at)
        snprintf(text, size, "%p lies %zu bytes before an allocation of %zu bytes", p,
                 (size_t)(a->at - (const char *)p), a->bytes);
    else if ((size_t)((const char *)p - a->at) >= a->bytes)
        snprintf(text, size, "%p lies %zu bytes behind the end of an allocation of %zu bytes", p,
                 (size_t)((const char *)p - a->at) - a->bytes, a->bytes);
    else
        snprintf(text, size, "the host touches byte %zu of an allocation of %zu bytes of the GPU's memory",
                 (size_t)((const char *)p - a->at), a->bytes);
    return true;
}
