/* The transport between processes that mpirun started: RDMA where every rank can, MPI otherwise. */
#ifndef HEARTH_TRANSPORT_NETWORK_H
#define HEARTH_TRANSPORT_NETWORK_H

#include <stdbool.h>
#include "base/status.h"
#include "transport/transport.h"
#include "transport/verbs.h"

enum network_kind {
    NETWORK_AUTO,  /* verbs if all ranks can be connected so, else mpi */
    NETWORK_MPI,
    NETWORK_VERBS,
    NETWORK_KINDS
};

struct network_options {
    enum network_kind kind;
    bool quiet;                 /* rank 0 says only what is wrong */
    struct verbs_options verbs; /* borrowed strings */
};

/* "auto", "mpi", "verbs". */
const char *network_kind_name(enum network_kind k);
/* false: there is none of that name. */
bool network_kind_of(const char *name, enum network_kind *out);

/* This process's endpoint; every rank calls it with the same options. Verbs is connected when it returns (connecting
 * again does no harm), mpi is not. Rank 0 says in one line which it is (and, where some rank has an RDMA device, why it
 * is MPI), or what is wrong: verbs is demanded and cannot be (ST_UNSUPPORTED), an option makes no sense (ST_USAGE). */
status transport_network_open(const struct transport_config *c, const struct network_options *o,
                              struct transport **out);

#endif
