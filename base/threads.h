/* A pool of threads that run one function together. The caller is thread 0. A pool belongs to the thread that made it.
 *
 * Between runs the workers spin for a short while (microseconds, decoding never gets past that) and then sleep. */
#ifndef HEARTH_BASE_THREADS_H
#define HEARTH_BASE_THREADS_H

#include <stdint.h>
#include "base/status.h"

struct pool;

/* Creates a pool of `n_threads` (1 or more) threads, the calling one included. ST_NOMEM (logged): no memory, or the
 * system gives no more threads. */
status pool_create(int n_threads, struct pool **out);
/* Joins the workers. NULL is fine. */
void pool_destroy(struct pool *p);

/* Calls fn(arg, begin, end, thread) until [0, n) is covered once, in pieces of at most `grain`, on all threads, and
 * returns when all of it is done. Which thread gets which piece is not determined: results must not depend on it.
 * Not reentrant. No allocation, no lock while threads are awake. */
typedef void pool_fn(void *arg, int64_t begin, int64_t end, int thread);
void pool_for(struct pool *p, int64_t n, int64_t grain, pool_fn *fn, void *arg);

/* From now on the caller of pool_for() calls fn(arg) after each piece of its own: for what must go on while all
 * compute. NULL: nothing. */
void pool_between(struct pool *p, void (*fn)(void *arg), void *arg);

/* Processors that this process's affinity mask holds, cpusets included, or as many as a cgroup's quota of CPU time
 * keeps running if that is fewer: 1.5 processors' worth is 1. At least 1. */
int threads_available(void);

#endif
