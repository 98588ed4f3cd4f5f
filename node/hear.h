/* Waiting for a message while a cluster starts: not a hot path, so it sleeps between polls. */
#ifndef HEARTH_NODE_HEAR_H
#define HEARTH_NODE_HEAR_H

#include <stddef.h>
#include <stdint.h>
#include "base/status.h"
#include "transport/transport.h"

/* Waits for a message of one of `kinds`, of `most` bytes at most, which the caller releases. A rank that fails
 * meanwhile says so: that is logged, naming it, and ST_PEER, as when it dies. ST_FORMAT (logged) if a message is
 * longer. By the thread that owns the transport. */
status hear(struct transport *t, uint32_t kinds, size_t most, struct arrival *a);

#endif
