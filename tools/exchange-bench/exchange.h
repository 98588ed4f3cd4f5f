/* One exchange, a message there and one of the same size back, in two ways. */
#ifndef HEARTH_TOOLS_EXCHANGE_H
#define HEARTH_TOOLS_EXCHANGE_H

#include <stddef.h>
#include "transport/transport.h"

/* Medians of the batches, microseconds. */
struct exchange_times {
    double mpi_us, hearth_us;
};

/* Ranks 0 and 1 exchange messages of `bytes`, at most TRANSPORT_SLOT, by turns through `t` and by MPI_Send and
 * MPI_Recv: n_batches of each, of batch_size exchanges. Every rank calls it. ST_PEER, ST_NOMEM, logged. */
status exchange_measure(struct transport *t, size_t bytes, int n_batches, int batch_size, struct exchange_times *out);

#endif
