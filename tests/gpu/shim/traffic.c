/* What kernels move of the GPU's memory, in the race build. What the lanes of a warp do at one place in the program,
 * for the n-th time each, counts as one access, which moves each sector of 32 bytes that it touches, as if there were
 * no cache. What a lane touches next to what it just touched, in the same 16 bytes, is one wide access, which a
 * compiler has cut. */
#include <stdlib.h>
#include <string.h>

#include "tests/gpu/shim/shim.h"

enum { SECTOR = 32, WIDEST = 16 };

/* A sector of an access. */
struct part {
    uintptr_t place, sector;
    uint32_t thread, number; /* number: of the access in the block; then, of its thread's at that place */
};

static simt_tell *told;
static struct part *parts;   /* of the block */
static size_t n_parts, room;
static uint32_t n_accesses;
static uintptr_t ends[MOST_THREADS]; /* of what each thread touched last */
static uint64_t moved, needed;

void simt_traffic(simt_tell *tell) { told = tell; }

void traffic_touch(const void *place, uintptr_t at, size_t n)
{
    if (!told)
        return;
    const int thread = running_thread();
    const bool goes_on = at == ends[thread] && at % WIDEST;
    ends[thread] = at + n;
    if (goes_on)
        return;
    n_accesses++;
    for (uintptr_t sector = at / SECTOR; sector * SECTOR < at + n; sector++) {
        if (n_parts == room) {
            room = room ? 2 * room : 1 << 16;
            parts = realloc(parts, room * sizeof *parts);
            if (!parts)
                die("no memory to note what is moved in");
        }
        parts[n_parts++] = (struct part){(uintptr_t)place, sector, (uint32_t)thread, n_accesses};
    }
}

void traffic_needs(int bytes) { needed += (uint64_t)bytes; }

/* ---- a block's ---- */

#define ORDER(a, b) \
    if ((a) != (b)) \
        return (a) < (b) ? -1 : 1

static int by_thread(const void *p, const void *q)
{
    const struct part *a = p, *b = q;
    ORDER(a->thread, b->thread);
    ORDER(a->place, b->place);
    ORDER(a->number, b->number);
    return 0;
}

static int by_access(const void *p, const void *q)
{
    const struct part *a = p, *b = q;
    ORDER(a->thread / WARP, b->thread / WARP);
    ORDER(a->place, b->place);
    ORDER(a->number, b->number);
    ORDER(a->sector, b->sector);
    return 0;
}

/* Numbers each thread's accesses at a place from 0. */
static void number_parts(void)
{
    uint32_t before = 0, number = 0;
    for (size_t i = 0; i < n_parts; i++) {
        const bool same = i && parts[i].thread == parts[i - 1].thread && parts[i].place == parts[i - 1].place;
        number = !same ? 0 : number + (parts[i].number != before);
        before = parts[i].number;
        parts[i].number = number;
    }
}

void traffic_block(void)
{
    if (!n_parts)
        return;
    qsort(parts, n_parts, sizeof *parts, by_thread);
    number_parts();
    qsort(parts, n_parts, sizeof *parts, by_access);
    for (size_t i = 0; i < n_parts; i++)
        moved += i == 0 || by_access(&parts[i - 1], &parts[i]) ? SECTOR : 0;
    n_parts = n_accesses = 0;
    memset(ends, 0, sizeof ends);
}

void traffic_launch(const char *kernel)
{
    if (told)
        told(kernel, moved, needed);
    moved = needed = 0;
}
