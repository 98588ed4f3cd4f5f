/* Start-up on rank 0: hears every rank, compares what they must agree in, and lets them load or sends them home. Both
 * functions wait for as long as it takes and belong to the thread that owns the transport. */
#ifndef HEARTH_NODE_ROLL_CALL_H
#define HEARTH_NODE_ROLL_CALL_H

#include "base/status.h"
#include "node/same_file.h"
#include "transport/transport.h"
#include "wire/wire.h"

/* Waits for the HELLO of every other rank; there are PLAN_MAX_RANKS at most. All agree with `own`, and their hosts hold
 * what they need: sends WELCOME to all. If not, or if own->failed: one line is logged (for own failure it was before),
 * every rank gets FAILED, and ST_MISMATCH comes back, or ST_BUDGET where a host's memory is too small.
 * hellos [n_ranks] receives each rank's hello, own included. ST_FORMAT (every rank gets FAILED) if a hello is none or
 * comes twice, ST_PEER if a rank dies. */
status roll_call(struct transport *t, const struct wire_hello *own, struct wire_hello *hellos);

/* Waits until every other rank has loaded, and compares what each has loaded from with rank 0's own `file`. held_bytes
 * [n_ranks] receives what each process holds (own entry untouched). ST_PEER (logged) if one fails or dies meanwhile,
 * ST_FORMAT if its message is broken or comes after its READY, ST_MISMATCH if its file differs. */
status roll_call_ready(struct transport *t, const struct same_file *file, uint64_t *held_bytes);

#endif
