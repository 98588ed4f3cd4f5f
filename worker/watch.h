/* What a device has read and how its time went, as the rank that it belongs to sees it. */
#ifndef HEARTH_WORKER_WATCH_H
#define HEARTH_WORKER_WATCH_H

#include "wire/wire.h"

struct watch {
    struct wire_device spent; /* so far */
    uint64_t begun_ns;        /* it is at work since then; 0: all that it was given is done */
    uint64_t seen_ns;         /* when it was last seen done */
};

static inline void watch_begin(struct watch *w, uint64_t now_ns)
{
    w->begun_ns = w->begun_ns ? w->begun_ns : now_ns;
}

/* It is seen done; the rank had nothing but that to wait for since since_ns. Others may have been served meanwhile, by
 * the same device: no time counts twice. */
static inline void watch_end(struct watch *w, uint64_t since_ns, uint64_t now_ns)
{
    const uint64_t since = since_ns > w->seen_ns ? since_ns : w->seen_ns;
    const uint64_t begun = w->begun_ns && w->begun_ns < since ? w->begun_ns : since;
    w->spent.busy_ns += now_ns - begun;
    w->spent.wait_ns += now_ns - since;
    w->begun_ns = 0;
    w->seen_ns = now_ns;
}

#endif
