#include "cli/topology.h"

#include <hwloc.h>
#include <stdlib.h>
#include "base/log.h"
#include "base/threads.h"

struct topology {
    hwloc_topology_t machine;
    hwloc_bitmap_t mine; /* processors that this process is bound to */
};

status topology_open(const char *synthetic, struct topology **out)
{
    struct topology *t = calloc(1, sizeof *t);
    if (!t) {
        log_error("no memory for the machine's topology");
        return ST_NOMEM;
    }
    t->mine = hwloc_bitmap_alloc();
    if (!t->mine || hwloc_topology_init(&t->machine) != 0) {
        hwloc_bitmap_free(t->mine);
        free(t);
        log_error("hwloc cannot start");
        return ST_INTERNAL;
    }
    if ((synthetic && hwloc_topology_set_synthetic(t->machine, synthetic) != 0) ||
        hwloc_topology_load(t->machine) != 0) {
        log_error("hwloc cannot read the topology of %s", synthetic ? synthetic : "this machine");
        topology_close(t);
        return ST_INTERNAL;
    }
    if (synthetic || hwloc_get_cpubind(t->machine, t->mine, HWLOC_CPUBIND_PROCESS) != 0)
        hwloc_bitmap_copy(t->mine, hwloc_topology_get_allowed_cpuset(t->machine));
    *out = t;
    return ST_OK;
}

void topology_close(struct topology *t)
{
    if (!t)
        return;
    hwloc_bitmap_free(t->mine);
    hwloc_topology_destroy(t->machine);
    free(t);
}

int topology_cores(const struct topology *t)
{
    int cores = 0;
    for (hwloc_obj_t core = NULL; (core = hwloc_get_next_obj_by_type(t->machine, HWLOC_OBJ_CORE, core));)
        cores += hwloc_bitmap_intersects(core->cpuset, t->mine);
    /* Some virtual machines and containers show no cores: then every processor counts as one. */
    return cores > 0 ? cores : threads_available();
}

int topology_nodes(const struct topology *t)
{
    int nodes = hwloc_get_nbobjs_by_type(t->machine, HWLOC_OBJ_NUMANODE);
    return nodes > 0 ? nodes : 1;
}

int topology_node_of(const struct topology *t, int rank, int n_ranks)
{
    int nodes = topology_nodes(t);
    if (nodes < 2 || n_ranks % nodes != 0)
        return -1;
    return rank / (n_ranks / nodes);
}

int topology_threads(const struct topology *t, int n_ranks, bool bound)
{
    int threads = topology_cores(t) / (bound ? 1 : n_ranks);
    return threads > 0 ? threads : 1;
}

static void bind_to_node(const struct topology *t, int node)
{
    hwloc_obj_t place = hwloc_get_obj_by_type(t->machine, HWLOC_OBJ_NUMANODE, (unsigned)node);
    if (!place || hwloc_set_cpubind(t->machine, place->cpuset, HWLOC_CPUBIND_PROCESS) != 0)
        log_warn("cannot bind this rank to NUMA node %d: it may run slower", node);
}

void topology_settle(const struct launch *launch, int inner_ranks, int *threads)
{
    struct topology *t;
    if (topology_open(NULL, &t) != ST_OK) {
        if (*threads == 0)
            *threads = 1;
        return;
    }
    /* mpirun binds every rank of a small job to one core unless told otherwise. */
    if (launch->rank == 0 && launch->bound && *threads > topology_cores(t))
        log_warn("%d threads on the %d cores that mpirun gives this rank; mpirun --bind-to none gives all", *threads,
                 topology_cores(t));
    if (*threads == 0)
        *threads = topology_threads(t, launch->local_ranks * inner_ranks, launch->bound);
    int node = topology_node_of(t, launch->local_rank, launch->local_ranks);
    if (node >= 0 && !launch->bound)
        bind_to_node(t, node);
    topology_close(t);
}
