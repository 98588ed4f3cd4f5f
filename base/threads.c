#include "base/threads.h"

#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"
#include "base/machine.h"

/* How long a helper spins for the next run before it sleeps. Decoding starts one every few microseconds. */
enum { SPINS_BEFORE_YIELD = 4000, YIELDS_BEFORE_SLEEP = 2000 };

/* Of a pool's gate, above every number of helpers. */
static const uint32_t OPEN = UINT32_C(1) << 31;

struct helper {
    struct pool *pool;
    pthread_t thread;
    int index;
};

struct pool {
    int n_threads;
    struct helper *helpers; /* [n_threads - 1] */
    pool_fn *fn;
    void *arg;
    int64_t n, grain;
    void (*between)(void *arg);
    void *between_arg;
    /* Each on its own cache line: next is hammered by all threads, run is polled by the sleepy ones. */
    _Alignas(64) _Atomic int64_t next;
    _Alignas(64) _Atomic uint32_t run;  /* counts runs; a helper waits for it to change */
    _Alignas(64) _Atomic uint32_t gate; /* OPEN while there is a run to join, and how many helpers are inside */
    _Alignas(64) _Atomic int asleep;
    _Atomic bool quit;
};

static inline void cpu_pause(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

static void futex(_Atomic uint32_t *word, int op, uint32_t value)
{
    syscall(SYS_futex, word, op | FUTEX_PRIVATE_FLAG, value, NULL, NULL, 0);
}

static void work(struct pool *p, int thread)
{
    for (;;) {
        int64_t begin = atomic_fetch_add_explicit(&p->next, p->grain, memory_order_relaxed);
        if (begin >= p->n)
            return;
        int64_t end = begin + p->grain;
        p->fn(p->arg, begin, end < p->n ? end : p->n, thread);
        if (thread == 0 && p->between)
            p->between(p->between_arg);
    }
}

/* Returns the number of the run that has come after `seen`; it may be over already, or be the next but one. */
static uint32_t wait_for_run(struct pool *p, uint32_t seen)
{
    uint32_t run;
    for (int i = 0; i < SPINS_BEFORE_YIELD + YIELDS_BEFORE_SLEEP; i++) {
        if ((run = atomic_load_explicit(&p->run, memory_order_acquire)) != seen)
            return run;
        if (i < SPINS_BEFORE_YIELD)
            cpu_pause();
        else
            sched_yield();
    }
    atomic_fetch_add(&p->asleep, 1);
    while ((run = atomic_load(&p->run)) == seen)
        futex(&p->run, FUTEX_WAIT, seen);
    atomic_fetch_sub(&p->asleep, 1);
    return run;
}

static void *helper_main(void *arg)
{
    struct helper *h = arg;
    struct pool *p = h->pool;
    for (uint32_t seen = 0;;) {
        seen = wait_for_run(p, seen);
        if (atomic_load_explicit(&p->quit, memory_order_acquire))
            return NULL;
        if (atomic_fetch_add_explicit(&p->gate, 1, memory_order_acquire) & OPEN)
            work(p, h->index);
        atomic_fetch_sub_explicit(&p->gate, 1, memory_order_release);
    }
}

static void start_run(struct pool *p)
{
    atomic_fetch_add(&p->run, 1);
    if (atomic_load(&p->asleep) > 0)
        futex(&p->run, FUTEX_WAKE, (uint32_t)p->n_threads);
}

void pool_for(struct pool *p, int64_t n, int64_t grain, pool_fn *fn, void *arg)
{
    p->fn = fn;
    p->arg = arg;
    p->n = n;
    p->grain = grain;
    atomic_store_explicit(&p->next, 0, memory_order_relaxed);
    if (p->n_threads == 1 || n <= grain) { /* the others need not wake up for it */
        work(p, 0);
        return;
    }
    atomic_fetch_or_explicit(&p->gate, OPEN, memory_order_release);
    start_run(p);
    work(p, 0);
    /* All pieces are taken: who has not come by now has nothing to do here. With more threads than processors that is
     * most of them, and waiting until each has had its turn would cost more than the work. */
    atomic_fetch_and_explicit(&p->gate, ~OPEN, memory_order_relaxed);
    for (int i = 0; atomic_load_explicit(&p->gate, memory_order_acquire) > 0; i++) {
        if (i < SPINS_BEFORE_YIELD)
            cpu_pause();
        else
            sched_yield(); /* who is still at it may need this processor */
    }
}

void pool_between(struct pool *p, void (*fn)(void *arg), void *arg)
{
    p->between = fn;
    p->between_arg = arg;
}

status pool_create(int n_threads, struct pool **out)
{
    struct pool *p = aligned_alloc(64, sizeof *p);
    if (!p)
        goto err;
    memset(p, 0, sizeof *p);
    p->n_threads = 1;
    p->helpers = calloc((size_t)n_threads, sizeof *p->helpers);
    if (!p->helpers)
        goto err;
    for (int i = 1; i < n_threads; i++) {
        struct helper *h = &p->helpers[i - 1];
        *h = (struct helper){.pool = p, .index = i};
        int e = pthread_create(&h->thread, NULL, helper_main, h);
        if (e) {
            log_error("cannot start thread %d of %d: %s", i + 1, n_threads, strerror(e));
            pool_destroy(p);
            return ST_NOMEM;
        }
        p->n_threads = i + 1;
    }
    *out = p;
    return ST_OK;
err:
    log_error("out of memory for a pool of %d threads", n_threads);
    free(p);
    return ST_NOMEM;
}

void pool_destroy(struct pool *p)
{
    if (!p)
        return;
    atomic_store(&p->quit, true);
    start_run(p);
    for (int i = 0; i < p->n_threads - 1; i++)
        pthread_join(p->helpers[i].thread, NULL);
    free(p->helpers);
    free(p);
}

int threads_available(void)
{
    cpu_set_t set;
    struct machine m;
    int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    machine_read("", &m);
    if (m.cpus > 0 && m.cpus < n)
        n = (int)m.cpus;
    return n > 0 ? n : 1;
}
