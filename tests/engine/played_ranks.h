/* Ranks whose messages a test sends and takes by hand, over the in-process transport. Include it first. */
#ifndef HEARTH_TESTS_PLAYED_RANKS_H
#define HEARTH_TESTS_PLAYED_RANKS_H

#include "tests/engine/made_model.h"

#include <pthread.h>

#include "base/log.h"
#include "transport/transport.h"
#include "wire/channels.h"
#include "wire/wire.h"

enum { MESSAGE_MAX = 1 << 16 };

static _Alignas(64) uint8_t message[MESSAGE_MAX];

static inline status open_transports(int n_ranks, struct transport **t)
{
    struct transport_config config;
    wire_channels(config.channel, TRANSPORT_KINDS);
    return transport_inproc_open(&config, n_ranks, t);
}

/* Takes what lies waiting for this rank, now; how much that was. */
static inline int take_all(struct transport *t)
{
    int n = 0;
    struct arrival a;
    for (bool found = true; found; n += found) {
        assert_int_equal(transport_poll(t, ~0u, &a, &found), ST_OK);
        if (found)
            assert_int_equal(transport_release(t, &a), ST_OK);
    }
    return n;
}

#endif
