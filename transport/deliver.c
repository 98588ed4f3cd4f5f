#include "transport/deliver.h"

#include <math.h>
#include <sched.h>

#include "base/clock.h"

static const double last_words_s = 0.25;

/* Waits until `s` is sent, or until a moment (clock_s). */
static status wait_sent(struct transport *t, struct send *s, double until_s, bool *done)
{
    enum { POLLS_BEFORE_SLEEP = 20000 };
    *done = false;
    status st = transport_sent(t, s, done);
    for (unsigned polls = 0; !st && !*done && clock_s() < until_s; polls++) {
        if (polls < POLLS_BEFORE_SLEEP)
            sched_yield();
        else
            transport_idle(t);
        st = transport_sent(t, s, done);
    }
    return st;
}

status deliver(struct transport *t, int to, int kind, const void *data, size_t size)
{
    struct send s;
    bool done;
    status st = transport_post(t, to, kind, data, size, &s);
    return st ? st : wait_sent(t, &s, INFINITY, &done);
}

/* Posts to every other rank, then waits for each; if not all have taken it by then, the transport is abandoned. */
static status deliver_until(struct transport *t, int kind, const void *data, size_t size, double until_s,
                            const char *why)
{
    struct send sends[DELIVER_MOST_RANKS];
    const int n = t->n_ranks < DELIVER_MOST_RANKS ? t->n_ranks : DELIVER_MOST_RANKS;
    bool sent = true;
    status st = ST_OK;
    for (int r = 0; r < n && !st; r++)
        if (r != t->rank)
            st = transport_post(t, r, kind, data, size, &sends[r]);
    for (int r = 0; r < n && !st && sent; r++)
        if (r != t->rank)
            st = wait_sent(t, &sends[r], until_s, &sent);
    if (!st && !sent)
        transport_abandon(t, why); /* who is busy loading, or waits for this rank to take a message, finds out so */
    return st;
}

status deliver_all(struct transport *t, int kind, const void *data, size_t size)
{
    return deliver_until(t, kind, data, size, INFINITY, NULL);
}

void deliver_last(struct transport *t, int kind, const void *data, size_t size, const char *why)
{
    (void)deliver_until(t, kind, data, size, clock_s() + last_words_s, why);
}
