#include "cli/launch.h"

#include <stdlib.h>

/* The first of the NULL-terminated `names` that holds a number >= `least`; `otherwise` if none does. */
static int environment_number(const char *const *names, int least, int otherwise)
{
    for (; *names; names++) {
        const char *text = getenv(*names);
        char *end;
        if (!text || !*text)
            continue;
        long v = strtol(text, &end, 10);
        if (!*end && v >= least && v < 1000000)
            return (int)v;
    }
    return otherwise;
}

struct launch launch_read(void)
{
    /* Open MPI, then MPICH and Slurm, which hearth may meet when it is built against another MPI. */
    static const char *const rank[] = {"OMPI_COMM_WORLD_RANK", "PMI_RANK", NULL};
    static const char *const local_rank[] = {"OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", NULL};
    static const char *const local_ranks[] = {"OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", NULL};
    static const char *const bound[] = {"OMPI_MCA_orte_bound_at_launch", NULL};
    struct launch l = {
        .rank = environment_number(rank, 0, 0),
        .local_rank = environment_number(local_rank, 0, 0),
        .local_ranks = environment_number(local_ranks, 1, 1),
        .bound = environment_number(bound, 0, 0) != 0,
    };
    return l;
}
