/* hearth probe over all ranks: rank 0 tells the others what to measure and when, one link or one host's memory and
 * GPUs at a time; all else is quiet. */
#ifndef HEARTH_PLACEMENT_MEASURE_RANKS_H
#define HEARTH_PLACEMENT_MEASURE_RANKS_H

#include <stdbool.h>
#include "base/status.h"
#include "placement/probe.h"
#include "transport/network.h"

struct probe_options {
    bool mpi;                       /* there are several processes, which MPI connects */
    struct network_options network; /* auto: over MPI, and over RDMA where every rank can */
    int threads;                    /* of this rank */
    int cores;                      /* that it may use */
    int n_sizes;                    /* rank 0 alone need know them */
    int64_t sizes[PROBE_MAX_SIZES]; /* of messages, ascending */
    void (*end_job)(void);          /* of struct transport_config */
    /* Measures the GPUs of this rank: n_gpus and gpus of *r. What fails it has logged, and left out. */
    void (*measure_gpus)(struct probe_rank *r, void *arg);
    void *gpus_arg;
    /* Called on rank 0 while `what` goes on. */
    void (*progress)(void *arg, const char *what, uint64_t done, uint64_t total);
    void *progress_arg;
};

/* On rank 0: measures everything and leaves it in *out. On the others: does what rank 0 says, then sets *out = NULL.
 * go_on false, on rank 0: only tells the others to stop (*out = NULL). Errors of the transport; ST_NOMEM if a rank has
 * no memory to read. All are logged. */
status probe_ranks(const struct probe_options *o, bool go_on, struct probe **out);

#endif
