/* Messages outside of the work: few, small, waited for. Whoever posts a message (transport_post) and then does other
 * things keeps it, and its struct send, in something that is freed after the transport's close. These functions do
 * nothing else meanwhile and come back when the transport has let go of the message, however it ends: so it may lie on
 * the caller's stack. The thread that owns the endpoint calls them. */
#ifndef HEARTH_TRANSPORT_DELIVER_H
#define HEARTH_TRANSPORT_DELIVER_H

#include "transport/transport.h"

enum { DELIVER_MOST_RANKS = 64 }; /* of a transport that messages for all go over */

/* Posts a message and waits until it is sent. ST_PEER. */
status deliver(struct transport *t, int to, int kind, const void *data, size_t size);

/* The same to every other rank, to all at once: one that is slow to take it holds up none of the others. ST_PEER. */
status deliver_all(struct transport *t, int kind, const void *data, size_t size);

/* What a rank says last: the same, but if not every rank has taken it within a quarter of a second, the transport is
 * abandoned, `why` being said then (which the others say as "rank N: why"). Either way nobody waits for this rank any
 * more once its endpoint is closed. */
void deliver_last(struct transport *t, int kind, const void *data, size_t size, const char *why);

#endif
