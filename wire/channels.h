/* Which kinds of message travel together: those of one channel from one rank to another keep their order, and one that
 * the receiver does not want yet holds up those behind it. Hence who waits for answers, and serves requests meanwhile,
 * finds both whatever else is queued; a failure is seen by everyone who waits; and a rank that is every stage itself
 * finds its result before the steps that are still to come. */
#ifndef HEARTH_WIRE_CHANNELS_H
#define HEARTH_WIRE_CHANNELS_H

#include <stddef.h>
#include <stdint.h>

enum wire_channel {
    CHANNEL_STEPS,    /* STEP, HIDDEN, and control: HELLO, WELCOME, READY, QUERY, STOP; blobs */
    CHANNEL_REQUESTS, /* REQUEST */
    CHANNEL_ANSWERS,  /* PARTIAL, ACTIVE, LOGITS */
    CHANNEL_FAILURES, /* FAILED; what is said of STATES on their way, which nothing may hold up either */
    CHANNEL_RESULTS,  /* RESULT, USAGE */
    WIRE_CHANNELS
};

enum { CHANNEL_STATES = CHANNEL_FAILURES }; /* what is lent for it is lent for STATES */

/* The channel of each kind, for struct transport_config; kinds that there are not: CHANNEL_STEPS. */
void wire_channels(uint8_t *channel, size_t n_kinds);

#endif
