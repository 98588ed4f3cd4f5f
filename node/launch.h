/* How this process was started, read once from the environment: by hand, or by a launcher (mpirun, srun) as one rank of
 * several. Nothing else asks the environment for ranks. */
#ifndef HEARTH_NODE_LAUNCH_H
#define HEARTH_NODE_LAUNCH_H

#include <stdbool.h>
#include "base/status.h"

struct launch {
    int rank;        /* 0 when started by hand */
    int n_ranks;     /* that the launcher has started; 1 when started by hand */
    int local_rank;  /* among the ranks of this host */
    int local_ranks; /* ranks on this host, 1 when started by hand */
    bool bound;      /* the launcher has bound the ranks to processors of their own */
    bool mpi;        /* ranks are processes that MPI is to connect */
    const char *launcher; /* for people; NULL when started by hand */
};

/* What the variables of a launcher say. A batch script, or a shell within a job of Slurm, is one rank, whatever tasks
 * the job has. */
struct launch launch_read(void);

/* On a rank > 0 that is about to fail: waits a moment. Rank 0 mostly fails alike and says why, and its end ends all; a
 * launcher that saw another rank end before would end rank 0 without a word. */
void launch_wait_for_rank_0(const struct launch *l);

/* Starts MPI where it is to connect the ranks. ST_USAGE if the launcher has started more of them than MPI connects,
 * which is none where hearth is built without: each would run the whole model alone. Rank 0 logs it, with the way out;
 * the others return a moment later. Errors of transport_mpi_world. */
status launch_meet(const struct launch *l);

#endif
