/* Measuring one link: how long messages take from this rank to another. Both ranks take part, one in each role; all
 * others are quiet meanwhile. */
#ifndef HEARTH_PLACEMENT_MEASURE_PING_H
#define HEARTH_PLACEMENT_MEASURE_PING_H

#include "base/status.h"
#include "placement/probe.h"
#include "transport/transport.h"

/* Messages of hearth probe; those of the first channel steer it (ranks.c), the others are what is measured. */
enum probe_kind { PROBE_TASK, PROBE_ANSWER, PROBE_PING, PROBE_STREAM, PROBE_END, PROBE_PONG };

enum { PING_WINDOW = 4 }; /* messages on their way without an answer */

extern const struct transport_config probe_channels; /* without end_job */

struct ping {                       /* freed after its transport is closed */
    struct transport *transport;
    void *data;                     /* [sizes[n_sizes - 1]] bytes to send, registered */
    int n_sizes;
    int64_t sizes[PROBE_MAX_SIZES]; /* ascending */
    struct send sends[PING_WINDOW]; /* under way, until the transport is closed if it must be */
};

/* Sends to `peer`, which echoes: a message of S bytes there and an empty one back, again and again; half of what empty
 * messages take both ways is taken off the lower quartile. Then many of the largest size without waiting. Errors of the
 * transport. */
status ping_measure(struct ping *p, int peer, struct probe_link *out);
/* The other role: answers `peer` until it says that it has finished. */
status ping_echo(struct ping *p, int peer);

/* Polls for a message of one of `kinds`; a rank that is not being measured sleeps between polls (quiet). */
status ping_await(struct transport *t, uint32_t kinds, bool quiet, struct arrival *a);

#endif
