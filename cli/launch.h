/* How this process was started, read once from the environment: by hand, or by mpirun as one rank of several. */
#ifndef HEARTH_CLI_LAUNCH_H
#define HEARTH_CLI_LAUNCH_H

#include <stdbool.h>

struct launch {
    int rank;        /* 0 when started by hand */
    int local_rank;  /* among the ranks of this host */
    int local_ranks; /* ranks on this host, 1 when started by hand */
    bool bound;      /* the launcher has bound the ranks to processors of their own */
};

struct launch launch_read(void);

#endif
