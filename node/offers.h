/* How the ranks tell each other of their GPUs, once all are known to be of one release: over rank 0. */
#ifndef HEARTH_NODE_OFFERS_H
#define HEARTH_NODE_OFFERS_H

#include "base/status.h"
#include "transport/transport.h"
#include "wire/wire.h"

/* Every rank calls it: offers [n_ranks] has its own, and receives those of all others. ST_PEER (logged) if a rank fails
 * or dies, ST_FORMAT (logged) if its message is broken: the caller then tells the others (worker_fail), who wait. By
 * the thread that owns the transport. */
status offers_exchange(struct transport *t, struct wire_gpus *offers);

#endif
