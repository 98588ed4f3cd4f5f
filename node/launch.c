#include "node/launch.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "base/log.h"
#include "transport/transport.h"

/* The variables of each launcher, NULL where it has none. The first whose rank is set has started this process: mpirun
 * may run within a job of Slurm. */
static const struct launcher {
    const char *name, *rank, *n_ranks, *local_rank, *local_ranks;
    bool mpi; /* MPI finds the others by what this launcher offers */
} launchers[] = {
    {"mpirun", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
     "OMPI_COMM_WORLD_LOCAL_SIZE", true},
    {"MVAPICH's mpirun", "MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_LOCAL_RANK",
     "MV2_COMM_WORLD_LOCAL_SIZE", true},
    {"mpiexec (as of MPICH or Intel MPI)", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS", true},
    {"srun", "PMIX_RANK", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", NULL, true},
    /* Of a step: a batch script or a shell of a job has SLURM_NTASKS too, and is one process. */
    {"srun", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", NULL, false},
};

/* The number that a variable (NULL: none) holds, if it is >= `least`; else `otherwise`. */
static int environment_number(const char *name, int least, int otherwise)
{
    const char *text = name ? getenv(name) : NULL;
    char *end;
    if (!text || !*text)
        return otherwise;
    const long v = strtol(text, &end, 10);
    return !*end && v >= least && v < 1000000 ? (int)v : otherwise;
}

/* Of Slurm's tasks of each node, such as 2(x3),1, those of this one; 1 if it does not say. */
static int step_tasks_here(void)
{
    const char *at = getenv("SLURM_STEP_TASKS_PER_NODE");
    long node = environment_number("SLURM_NODEID", 0, 0);
    while (at && *at) {
        char *end;
        const long tasks = strtol(at, &end, 10), nodes = strncmp(end, "(x", 2) ? 1 : strtol(end + 2, &end, 10);
        if (tasks < 1 || tasks >= 1000000 || nodes < 1)
            break;
        if (node < nodes)
            return (int)tasks;
        node -= nodes;
        end += strcspn(end, ",");
        at = end + (*end == ',');
    }
    return 1;
}

/* Open MPI says so; Slurm, if each task has processors of its own. */
static bool is_bound(void)
{
    const char *slurm = getenv("SLURM_CPU_BIND_TYPE");
    return environment_number("OMPI_MCA_orte_bound_at_launch", 0, 0) != 0 ||
           (slurm && (!strncmp(slurm, "mask_cpu", 8) || !strncmp(slurm, "map_cpu", 7)));
}

struct launch launch_read(void)
{
    struct launch l = {.n_ranks = 1, .local_ranks = 1};
    const struct launcher *by = launchers, *end = launchers + sizeof launchers / sizeof *launchers;
    while (by < end && environment_number(by->rank, 0, -1) < 0)
        by++;
    if (by == end)
        return l;
    l.launcher = by->name;
    l.rank = environment_number(by->rank, 0, 0);
    l.n_ranks = environment_number(by->n_ranks, l.rank + 1, l.rank + 1);
    l.local_rank = environment_number(by->local_rank, 0, 0);
    l.local_ranks = by->local_ranks ? environment_number(by->local_ranks, 1, 1) : step_tasks_here();
    l.bound = is_bound();
    l.mpi = by->mpi;
    return l;
}

static void refuse(const struct launch *l, int connected)
{
    char mpi[64];
    transport_mpi_name(mpi, sizeof mpi);
    if (!*mpi)
        log_error("%s has started a hearth that was built without MPI and can be no rank of its: start it by hand, or "
                  "build it with MPI (HEARTH_MPI=ON)", l->launcher);
    else if (l->mpi)
        log_error("%s has started %d ranks, but %s, which hearth was built with, connects %d: start hearth with the "
                  "mpirun of that MPI", l->launcher, l->n_ranks, mpi, connected);
    else
        log_error("%s has started %d ranks without telling MPI: use srun --mpi=pmix, or mpirun (%s)", l->launcher,
                  l->n_ranks, mpi);
}

void launch_wait_for_rank_0(const struct launch *l)
{
    if (l->rank > 0)
        nanosleep(&(struct timespec){.tv_sec = 3}, NULL); /* Open MPI's mpirun takes one to end the others */
}

status launch_meet(const struct launch *l)
{
    int rank, n_ranks = 1;
    status st = l->mpi ? transport_mpi_world(&rank, &n_ranks) : ST_OK;
    if (st || n_ranks >= l->n_ranks)
        return st;
    if (l->rank == 0)
        refuse(l, n_ranks);
    launch_wait_for_rank_0(l);
    return ST_USAGE;
}
