#include "cli/bandwidth.h"

#include <stdint.h>
#include <unistd.h>
#include "base/arena.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/threads.h"

enum { ROUNDS = 12, STREAMS = 8 };

typedef int64_t vector __attribute__((vector_size(64)));

struct scan {
    const vector *data;
    int64_t n; /* vectors */
    _Alignas(64) int64_t sums[64]; /* of each thread, so that the reads cannot be left out */
};

static void fill(void *arg, int64_t begin, int64_t end, int thread)
{
    struct scan *s = arg;
    vector *data = (vector *)s->data;
    for (int64_t i = begin; i < end; i++)
        data[i] = (vector){i, thread};
}

/* Several sums, so that no addition waits for the one before. */
static void sum(void *arg, int64_t begin, int64_t end, int thread)
{
    struct scan *s = arg;
    const vector *v = s->data;
    vector sums[STREAMS] = {{0}};
    int64_t i = begin;
    for (; i + STREAMS <= end; i += STREAMS)
        for (int k = 0; k < STREAMS; k++)
            sums[k] += v[i + k];
    for (; i < end; i++)
        sums[0] += v[i];
    for (int k = 1; k < STREAMS; k++)
        sums[0] += sums[k];
    s->sums[thread % 64] += sums[0][0] ^ sums[0][1];
}

/* A gigabyte, less where the machine has less than four of them free. */
static int64_t buffer_bytes(void)
{
    int64_t free_bytes = (int64_t)sysconf(_SC_AVPHYS_PAGES) * sysconf(_SC_PAGESIZE), bytes = 1 << 30;
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
    status st = arena_map(&arena, (size_t)bytes);
    if (st != ST_OK)
        return st;
    st = pool_create(threads, &pool);
    if (st != ST_OK)
        goto unmap;
    scan.data = arena_alloc(&arena, (size_t)bytes);
    scan.n = bytes / (int64_t)sizeof(vector);
    int64_t grain = (scan.n + threads - 1) / threads;
    double best_s = 1e9;
    volatile int64_t used;
    pool_for(pool, scan.n, grain, fill, &scan);
    for (int round = 0; round < ROUNDS; round++) {
        double start = clock_s();
        pool_for(pool, scan.n, grain, sum, &scan);
        double took = clock_s() - start;
        best_s = took < best_s ? took : best_s;
        used = scan.sums[0];
    }
    (void)used;
    *gb_per_s = (double)bytes / best_s / 1e9;
    pool_destroy(pool);
unmap:
    arena_unmap(&arena);
    return st;
}
