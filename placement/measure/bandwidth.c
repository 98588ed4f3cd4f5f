#include "placement/measure/bandwidth.h"

#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>
#include "base/arena.h"
#include "base/clock.h"
#include "base/machine.h"
#include "base/threads.h"
#include "kernels/kernels.h"

enum { ROUNDS_LEAST = 3, ROUNDS = 12, UNIT = 4096 /* bytes, the grain of a thread's part */ };
#define LONG_ENOUGH_S 1.5 /* where memory is slow, or what reads it (under a sanitizer) */

struct scan {
    const struct kernels *kernels;
    uint32_t *data;
    _Atomic uint32_t sum; /* so that the reads cannot be left out */
};

static void fill(void *arg, int64_t begin, int64_t end, int thread)
{
    struct scan *s = arg;
    memset((uint8_t *)s->data + begin * UNIT, thread + 1, (size_t)(end - begin) * UNIT);
}

static void read_part(void *arg, int64_t begin, int64_t end, int thread)
{
    struct scan *s = arg;
    const int64_t words = UNIT / (int64_t)sizeof *s->data;
    (void)thread;
    s->sum += s->kernels->read_words(s->data + begin * words, (end - begin) * words);
}

/* A gigabyte, less where the machine, or a cgroup's limit, has less than four of them free. */
static int64_t buffer_bytes(void)
{
    int64_t free_bytes = (int64_t)sysconf(_SC_AVPHYS_PAGES) * sysconf(_SC_PAGESIZE), bytes = 1 << 30;
    struct machine m;
    machine_read("", &m);
    const uint64_t held = machine_held(), left = m.limit_bytes > held ? m.limit_bytes - held : 0;
    if (left < (uint64_t)free_bytes)
        free_bytes = (int64_t)left;
    while (bytes > free_bytes / 4 && bytes > 1 << 26)
        bytes /= 2;
    return bytes;
}

status bandwidth_read_peak(int threads, double *gb_per_s)
{
    struct pool *pool = NULL;
    struct arena arena;
    struct scan scan = {0};
    int64_t bytes = buffer_bytes();
    arena_dry(&arena);
    status st = kernels_select(NULL, &scan.kernels);
    if (st == ST_OK)
        st = arena_map(&arena, (size_t)bytes);
    if (st != ST_OK)
        return st;
    st = pool_create(threads, &pool);
    if (st != ST_OK)
        goto unmap;
    scan.data = arena_alloc(&arena, (size_t)bytes);
    int64_t units = bytes / UNIT, grain = (units + threads - 1) / threads;
    double best_s = 1e9;
    pool_for(pool, units, grain, fill, &scan);
    const double begin = clock_s();
    for (int round = 0; round < ROUNDS && (round < ROUNDS_LEAST || clock_s() - begin < LONG_ENOUGH_S); round++) {
        double start = clock_s();
        pool_for(pool, units, grain, read_part, &scan);
        double took = clock_s() - start;
        best_s = took < best_s ? took : best_s;
    }
    *gb_per_s = (double)bytes / best_s / 1e9;
    pool_destroy(pool);
unmap:
    arena_unmap(&arena);
    return st;
}
