/* By hwloc. */
#include "node/cores.h"

#include <hwloc.h>
#include <stdlib.h>
#include "base/log.h"
#include "base/threads.h"

struct cores {
    hwloc_topology_t machine;
    hwloc_bitmap_t mine; /* processors that this process is bound to */
};

status cores_open(const char *synthetic, struct cores **out)
{
    struct cores *c = calloc(1, sizeof *c);
    if (!c) {
        log_error("no memory for the machine's topology");
        return ST_NOMEM;
    }
    c->mine = hwloc_bitmap_alloc();
    if (!c->mine || hwloc_topology_init(&c->machine) != 0) {
        hwloc_bitmap_free(c->mine);
        free(c);
        log_error("hwloc cannot start");
        return ST_INTERNAL;
    }
    if ((synthetic && hwloc_topology_set_synthetic(c->machine, synthetic) != 0) ||
        hwloc_topology_load(c->machine) != 0) {
        log_error("hwloc cannot read the topology of %s", synthetic ? synthetic : "this machine");
        cores_close(c);
        return ST_INTERNAL;
    }
    if (synthetic || hwloc_get_cpubind(c->machine, c->mine, HWLOC_CPUBIND_PROCESS) != 0)
        hwloc_bitmap_copy(c->mine, hwloc_topology_get_allowed_cpuset(c->machine));
    *out = c;
    return ST_OK;
}

void cores_close(struct cores *c)
{
    if (!c)
        return;
    hwloc_bitmap_free(c->mine);
    hwloc_topology_destroy(c->machine);
    free(c);
}

int cores_physical(const struct cores *c)
{
    int cores = 0;
    for (hwloc_obj_t core = NULL; (core = hwloc_get_next_obj_by_type(c->machine, HWLOC_OBJ_CORE, core));)
        cores += hwloc_bitmap_intersects(core->cpuset, c->mine);
    /* Some virtual machines and containers show no cores: then every processor counts as one. */
    return cores > 0 ? cores : threads_available();
}

int cores_processors(const struct cores *c) { return hwloc_bitmap_weight(c->mine); }

int cores_nodes(const struct cores *c)
{
    int nodes = hwloc_get_nbobjs_by_type(c->machine, HWLOC_OBJ_NUMANODE);
    return nodes > 0 ? nodes : 1;
}

void cores_bind(const struct cores *c, int node)
{
    hwloc_obj_t place = hwloc_get_obj_by_type(c->machine, HWLOC_OBJ_NUMANODE, (unsigned)node);
    if (!place || hwloc_set_cpubind(c->machine, place->cpuset, HWLOC_CPUBIND_PROCESS) != 0)
        log_warn("cannot bind this rank to NUMA node %d: it may run slower", node);
}
