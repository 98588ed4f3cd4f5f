#include "serve/watch.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "base/clock.h"
#include "base/log.h"

enum { PERIOD_NS = 100000000 };

struct watch {
    void (*tick)(void *arg);
    void *arg;
    pthread_t thread;
    pthread_mutex_t lock;  /* of what follows */
    pthread_cond_t wake;
    bool over;
    struct watched *first;
};

/* Sleeps for a period, or until there is an end. Holds the lock. */
static void sleep_some(struct watch *w)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += PERIOD_NS;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    while (!w->over && pthread_cond_timedwait(&w->wake, &w->lock, &until) == 0)
        ;
}

static void *watch_run(void *arg)
{
    struct watch *w = arg;
    pthread_mutex_lock(&w->lock);
    while (!w->over) {
        pthread_mutex_unlock(&w->lock);
        w->tick(w->arg);
        pthread_mutex_lock(&w->lock);
        const double now_s = clock_s();
        for (struct watched *i = w->first; i; i = i->next)
            i->look(i, now_s);
        sleep_some(w);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

status watch_start(void (*tick)(void *arg), void *arg, struct watch **out)
{
    struct watch *w = calloc(1, sizeof *w);
    pthread_condattr_t monotonic;
    if (!w) {
        log_error("no memory for the server's watch");
        return ST_NOMEM;
    }
    w->tick = tick;
    w->arg = arg;
    pthread_mutex_init(&w->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&w->wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    const int e = pthread_create(&w->thread, NULL, watch_run, w);
    if (e) {
        log_error("cannot start the server's watch: %s", strerror(e));
        pthread_cond_destroy(&w->wake);
        pthread_mutex_destroy(&w->lock);
        free(w);
        return ST_INTERNAL;
    }
    *out = w;
    return ST_OK;
}

void watch_stop(struct watch *w)
{
    if (!w)
        return;
    pthread_mutex_lock(&w->lock);
    w->over = true;
    pthread_cond_signal(&w->wake);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    pthread_cond_destroy(&w->wake);
    pthread_mutex_destroy(&w->lock);
    free(w);
}

void watch_add(struct watch *w, struct watched *what)
{
    pthread_mutex_lock(&w->lock);
    what->next = w->first;
    what->link = &w->first;
    if (w->first)
        w->first->link = &what->next;
    w->first = what;
    pthread_mutex_unlock(&w->lock);
}

void watch_remove(struct watch *w, struct watched *what)
{
    pthread_mutex_lock(&w->lock);
    *what->link = what->next;
    if (what->next)
        what->next->link = what->link;
    pthread_mutex_unlock(&w->lock);
}
