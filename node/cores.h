/* What the system says of the machine's cores and NUMA nodes, and of this process's part of them. Two files know it:
 * cores_hwloc.c, and cores_linux.c where hearth is built without hwloc, for one process on a machine of its own. */
#ifndef HEARTH_NODE_CORES_H
#define HEARTH_NODE_CORES_H

#include "base/status.h"

struct cores;

/* Looks at this machine, or, for tests, at the one that `synthetic` describes in hwloc's words ("node:2 core:8 pu:2").
 * ST_INTERNAL if the system does not say, ST_UNSUPPORTED for a synthetic one without hwloc, ST_NOMEM; logged. */
status cores_open(const char *synthetic, struct cores **out);
void cores_close(struct cores *c); /* NULL is fine */

/* Physical cores that this process may use; at least 1. */
int cores_physical(const struct cores *c);
/* Hardware threads that it may use; at least 1. */
int cores_processors(const struct cores *c);
/* NUMA nodes of the machine; at least 1. */
int cores_nodes(const struct cores *c);
/* Binds this process to one of them. A failure only costs speed (logged). */
void cores_bind(const struct cores *c, int node);

#endif
