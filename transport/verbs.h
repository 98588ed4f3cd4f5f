/* Ranks whose network cards write into each other's memory: libibverbs reliable connections over InfiniBand or RoCE.
 *
 * For every pair of ranks and each direction there is a ring of slots, which the receiver has registered. A message is
 * one RDMA WRITE WITH IMMEDIATE from where it lies straight into a slot; the immediate value says what it is and gives
 * slots back that the writer itself has read meanwhile, so an exchange is one write each way. What connects the ranks,
 * and how a failure is noticed, stands in verbs_connect.c and verbs_alive.c. */
#ifndef HEARTH_TRANSPORT_VERBS_H
#define HEARTH_TRANSPORT_VERBS_H

#include <stddef.h>
#include "base/status.h"
#include "transport/transport.h"

struct verbs_calls;

struct verbs_options {
    const char *device; /* "mlx5_0", or "mlx5_0:2" for its port 2; NULL: the first that can be used */
    const char *gid;    /* "3": that one of the port's table; "ipv4", "ipv6", "local" (fe80::): the first of them; NULL:
                         * the first of any, in this order. RoCE v2 before v1 */
    int mtu;            /* bytes of a packet, 256 to 4096; 0: what the port has */
    int service_level;  /* 0 to 15 */
    const struct verbs_calls *calls; /* NULL: libibverbs */
};

/* How ranks tell each other their addresses: each gives `bytes`, the same number on every rank, and gets those of all
 * ranks in their order. Blocks. ST_PEER if a rank is missing. */
struct verbs_gather {
    status (*gather)(void *arg, const void *mine, size_t bytes, void *all /* [n_ranks, bytes] */);
    void *arg;
};

/* Opens the device for one rank of n_ranks; connecting is where the ranks meet, and fails on all of them if it does on
 * one. `o` is copied, but not the strings and calls it points to. ST_UNSUPPORTED: no device, port or GID can be used;
 * ST_USAGE: an option makes no sense; ST_NOMEM. */
status transport_verbs_open(const struct transport_config *c, const struct verbs_options *o, int rank, int n_ranks,
                            const struct verbs_gather *g, struct transport **out);

/* The port that an endpoint uses, for people: "mlx5_0 port 1, RoCE v2, 192.168.1.2, MTU 4096". Valid until close. */
const char *transport_verbs_port(const struct transport *t);

#endif
