/* How many threads a rank should run, and where: by the machine's cores and NUMA nodes, and this process's part of
 * them. */
#ifndef HEARTH_NODE_TOPOLOGY_H
#define HEARTH_NODE_TOPOLOGY_H

#include <stdbool.h>
#include "base/status.h"
#include "node/launch.h"

struct topology;

/* Looks at this machine, or, for tests, at the one that `synthetic` describes in hwloc's words ("node:2 core:8 pu:2").
 * Errors of cores_open. */
status topology_open(const char *synthetic, struct topology **out);
void topology_close(struct topology *t);

/* Physical cores that this process may use: two hardware threads of a core share its units, and one of them already
 * keeps them and the memory bus busy. At least 1. */
int topology_cores(const struct topology *t);
int topology_nodes(const struct topology *t);
/* The NUMA node that local rank `rank` of `n_ranks` should live on, or -1 where nodes and ranks do not divide evenly
 * (or there is one node only) and a rank had better use all of the machine. */
int topology_node_of(const struct topology *t, int rank, int n_ranks);
/* From now on as if a cgroup gave so many processors' worth of time (0: no limit), which all ranks of the machine
 * share; what this machine's cgroups give is known already. */
void topology_set_quota(struct topology *t, double cpus);
/* The threads that each of `n_ranks` ranks on this machine should run. `bound`: the process's processors are already
 * its rank's own. At least 1. */
int topology_threads(const struct topology *t, int n_ranks, bool bound);
/* The most threads of each of `n_ranks` ranks that can run at once, hardware threads of a core counted one by one. It
 * may be less than one. */
double topology_most_threads(const struct topology *t, int n_ranks, bool bound);

/* For this process, which has `inner_ranks` ranks: sets *threads unless it is set; binds the process to its NUMA node
 * where several processes share a machine of several nodes; and warns, once on each host, if there are more threads
 * than can run at once. Failures only cost speed. */
void topology_settle(const struct launch *launch, int inner_ranks, int *threads);
/* Only the first of these, for `n_ranks` ranks in this process which will not run now. */
int topology_usual_threads(const struct launch *launch, int n_ranks);

#endif
