/* Asynchronous copies into shared memory (cp.async). One is carried out when its thread waits for it, or by chance as
 * soon as it begins. Until then its bytes are no number, and nobody may touch them. */
#include <stdlib.h>
#include <string.h>

#include "tests/gpu/shim/shim.h"

struct copy {
    void *to;
    const void *from;
    uint32_t bytes, group;
    bool early;
};

/* Those of a thread, in their order. */
static struct list {
    struct copy *copies;
    size_t first, end, room;
    uint32_t groups;     /* that are closed */
} lists[MOST_THREADS];
static uint16_t *owners; /* of each word of shared memory: 1 + the thread that copies to it; 0: none */

static uint16_t *owner_of(const void *at)
{
    if (!owners && !(owners = calloc(shared_bytes() / 4 + 1, sizeof *owners)))
        die("no memory to note copies in");
    return &owners[shared_offset(at) / 4];
}

bool copy_is_under_way(const void *at) { return *owner_of(at) != 0; }

static void append(struct list *l, const struct copy *c)
{
    if (l->end == l->room) {
        l->room = l->room ? 2 * l->room : 16;
        l->copies = realloc(l->copies, l->room * sizeof *l->copies);
        if (!l->copies)
            die("no memory to note copies in");
    }
    l->copies[l->end++] = *c;
}

void simt_copy_begin(void *to, const void *from, size_t n)
{
    const int thread = running_thread();
    struct list *l = &lists[thread];
    if (shared_offset(to) == SIZE_MAX || arena_where(from) == PAGEABLE)
        die("a copy from %p to %p is not one from the GPU's memory to shared memory", from, to);
    if ((n != 4 && n != 8 && n != 16) || (uintptr_t)to % n || (uintptr_t)from % n)
        die("a copy of %zu bytes from %p to %p is not aligned", n, from, to);
    race_copy_begins(__builtin_return_address(0), to, from, n);
    for (uint16_t *o = owner_of(to), *end = o + n / 4; o < end; o++) {
        if (*o)
            die("begins a copy to %p, where one of thread %d is under way", to, *o - 1);
        *o = (uint16_t)(1 + thread);
    }
    const struct copy c = {to, from, (uint32_t)n, l->groups, draw(4) == 0};
    if (c.early)
        memcpy(to, from, n);
    else
        fill_with_nan(to, n);
    append(l, &c);
}

void simt_copy_group(void) { lists[running_thread()].groups++; }

static void finish(const struct copy *c)
{
    if (c->early ? memcmp(c->to, c->from, c->bytes) != 0 : !filled_with_nan(c->to, c->bytes))
        die("bytes at %p were written while a copy to them was under way", c->to);
    memcpy(c->to, c->from, c->bytes);
    race_copy_ends(c->to, c->bytes);
    memset(owner_of(c->to), 0, c->bytes / 4 * sizeof *owners);
}

void simt_copy_wait(int but)
{
    struct list *l = &lists[running_thread()];
    while (l->first < l->end && l->groups - l->copies[l->first].group > (uint32_t)but)
        finish(&l->copies[l->first++]);
    if (l->first == l->end)
        l->first = l->end = 0;
}

void copies_end(void)
{
    struct list *l = &lists[running_thread()];
    if (l->first < l->end)
        die("the thread ends while a copy to %p is under way, which it has not waited for", l->copies[l->first].to);
    l->groups = 0;
}
