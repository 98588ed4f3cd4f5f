#include "cli/end_job.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#include "base/log.h"

enum { EXIT_WORK_FAILED = 1 };

void end_job(void)
{
    log_let_out(); /* rank 0 will not hear it */
    _exit(EXIT_WORK_FAILED);
}

struct leaving {
    double seconds;
    atomic_bool in_order, well;
};

static void *wait_and_end(void *arg)
{
    struct leaving *l = arg;
    const time_t whole = (time_t)l->seconds;
    nanosleep(&(struct timespec){.tv_sec = whole, .tv_nsec = (long)(1e9 * (l->seconds - (double)whole))}, NULL);
    if (atomic_load(&l->in_order))
        _exit(atomic_load(&l->well) ? EXIT_SUCCESS : EXIT_WORK_FAILED);
    log_error("the ranks have not come to their end within %.1f s: is one of them gone?", l->seconds);
    end_job();
}

struct leaving *leaving_begin(double seconds)
{
    pthread_t thread;
    struct leaving *l = calloc(1, sizeof *l);
    if (!l)
        return NULL;
    l->seconds = seconds;
    if (pthread_create(&thread, NULL, wait_and_end, l) != 0) {
        free(l);
        return NULL;
    }
    pthread_detach(thread);
    return l;
}

void leaving_in_order(struct leaving *l, bool well)
{
    if (!l)
        return;
    atomic_store(&l->well, well);
    atomic_store(&l->in_order, true);
}
