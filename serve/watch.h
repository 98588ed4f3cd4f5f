/* A thread that looks at what is under way ten times a second: clients that have left are noticed although nobody
 * writes to them, streams are kept alive, and orders of signal handlers are carried out. */
#ifndef HEARTH_SERVE_WATCH_H
#define HEARTH_SERVE_WATCH_H

#include "base/status.h"

struct watch;

/* Something that is looked at, from watch_add to watch_remove. Embedded in it. */
struct watched {
    void (*look)(struct watched *w, double now_s); /* clock_s(); may not wait, nor add or remove */
    struct watched *next, **link; /* the watch's */
};

/* `tick` is called first each time. ST_NOMEM, ST_INTERNAL (logged). */
status watch_start(void (*tick)(void *arg), void *arg, struct watch **out);
/* The thread is gone; nothing is looked at any more. NULL is fine. */
void watch_stop(struct watch *w);
/* Any thread. After watch_remove nobody looks at it. */
void watch_add(struct watch *w, struct watched *what);
void watch_remove(struct watch *w, struct watched *what);

#endif
