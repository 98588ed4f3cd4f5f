#include "placement/measure/ping.h"

#include <math.h>
#include <sched.h>
#include <stdlib.h>
#include <time.h>
#include "base/clock.h"
#include "base/log.h"
#include "transport/deliver.h"

enum { REPEATS_MOST = 400, REPEATS_LEAST = 15, STREAM_MOST = 64, STREAM_LEAST = 4 };
static const double enough_s = 0.02; /* of one size */
static const double least_us = 0.01; /* what a clock tells apart */

const struct transport_config probe_channels = {
    .channel = {[PROBE_TASK] = 0, [PROBE_ANSWER] = 0, [PROBE_PING] = 1, [PROBE_STREAM] = 1, [PROBE_END] = 1,
                [PROBE_PONG] = 2},
};

status ping_await(struct transport *t, uint32_t kinds, bool quiet, struct arrival *a)
{
    enum { POLLS_BEFORE_YIELD = 64, QUIET_NS = 500000 };
    bool found = false;
    status st = transport_poll(t, kinds, a, &found);
    for (unsigned polls = 0; !st && !found; polls++) {
        if (quiet)
            nanosleep(&(struct timespec){.tv_nsec = QUIET_NS}, NULL);
        else if (polls > POLLS_BEFORE_YIELD)
            sched_yield();
        st = transport_poll(t, kinds, a, &found);
    }
    return st;
}

static status wait_sent(struct transport *t, struct send *s)
{
    bool done = false;
    status st = transport_sent(t, s, &done);
    while (!st && !done) {
        sched_yield();
        st = transport_sent(t, s, &done);
    }
    return st;
}

/* Waits for the peer's empty answer. */
static status await_pong(struct ping *p, int peer)
{
    struct arrival a;
    status st = ping_await(p->transport, 1u << PROBE_PONG, false, &a);
    if (!st && (a.from != peer || a.size != 0)) {
        log_error("rank %d: an answer of %zu bytes from rank %d, expected none from rank %d", p->transport->rank,
                  a.size, a.from, peer);
        return ST_FORMAT;
    }
    return st ? st : transport_release(p->transport, &a);
}

static status round_trip(struct ping *p, int peer, size_t size, double *us)
{
    const double start = clock_s();
    status st = transport_post(p->transport, peer, PROBE_PING, p->data, size, &p->sends[0]);
    if (!st)
        st = await_pong(p, peer);
    *us = (clock_s() - start) * 1e6;
    return st ? st : wait_sent(p->transport, &p->sends[0]);
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The lower quartile of many: whatever else runs only adds to them. The first ones, which find cold caches and sleeping
 * ranks, do not count. */
static status usual_trip(struct ping *p, int peer, size_t size, double *us)
{
    double took[REPEATS_MOST], ignored;
    int n = 0;
    status st = ST_OK;
    for (int i = 0; i < 3 && !st; i++)
        st = round_trip(p, peer, size, &ignored);
    const double start = clock_s();
    while (!st && n < REPEATS_MOST && (n < REPEATS_LEAST || clock_s() - start < enough_s))
        st = round_trip(p, peer, size, &took[n++]);
    qsort(took, (size_t)n, sizeof *took, ascending);
    *us = took[n / 4];
    return st;
}

/* `n` messages one after the other, the last of which is answered. */
static status stream(struct ping *p, int peer, size_t size, int n)
{
    status st = ST_OK;
    for (int i = 0; i < n && !st; i++) {
        if (i >= PING_WINDOW)
            st = wait_sent(p->transport, &p->sends[i % PING_WINDOW]);
        if (!st)
            st = transport_post(p->transport, peer, i + 1 < n ? PROBE_STREAM : PROBE_PING, p->data, size,
                                &p->sends[i % PING_WINDOW]);
    }
    if (!st)
        st = await_pong(p, peer);
    for (int i = 0; i < PING_WINDOW && i < n && !st; i++)
        st = wait_sent(p->transport, &p->sends[i]);
    return st;
}

status ping_measure(struct ping *p, int peer, struct probe_link *out)
{
    const size_t largest = (size_t)p->sizes[p->n_sizes - 1];
    struct probe_link found = {0};
    double empty_us = 0;
    status st = usual_trip(p, peer, 0, &empty_us);
    for (int i = 0; i < p->n_sizes && !st; i++) {
        st = usual_trip(p, peer, (size_t)p->sizes[i], &found.us[i]);
        found.us[i] = fmax(found.us[i] - empty_us / 2, fmax(empty_us / 2, least_us));
    }
    if (st)
        return st;
    const double fit = 2.5 * enough_s * 1e6 / found.us[p->n_sizes - 1];
    const int n = fit > STREAM_MOST ? STREAM_MOST : fit < STREAM_LEAST ? STREAM_LEAST : (int)fit;
    const double start = clock_s();
    st = stream(p, peer, largest, n);
    const double us = fmax((clock_s() - start) * 1e6 - empty_us / 2, least_us);
    found.gb_per_s = (double)largest * n / us / 1e3;
    if (!st)
        st = deliver(p->transport, peer, PROBE_END, NULL, 0);
    if (!st)
        *out = found;
    return st;
}

status ping_echo(struct ping *p, int peer)
{
    const uint32_t kinds = 1u << PROBE_PING | 1u << PROBE_STREAM | 1u << PROBE_END;
    for (;;) {
        struct arrival a;
        status st = ping_await(p->transport, kinds, false, &a);
        if (st)
            return st;
        const int kind = a.kind;
        if (a.from != peer) {
            log_error("rank %d: rank %d sends while rank %d is measured", p->transport->rank, a.from, peer);
            return ST_FORMAT;
        }
        st = transport_release(p->transport, &a);
        if (!st && kind == PROBE_PING)
            st = deliver(p->transport, peer, PROBE_PONG, NULL, 0);
        if (st || kind == PROBE_END)
            return st;
    }
}
