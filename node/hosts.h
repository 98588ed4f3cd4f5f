/* Whether the hosts' memory is enough for all of their ranks together: each alone knows only what itself needs. */
#ifndef HEARTH_NODE_HOSTS_H
#define HEARTH_NODE_HOSTS_H

#include "base/status.h"
#include "wire/wire.h"

/* hellos [n]: what the ranks said. ST_BUDGET, with a line that says where, who and how much, if the ranks of a machine
 * need more than it has, or those under one cgroup's limit more than that. Thread-safe. */
status hosts_hold(const struct wire_hello *hellos, int n);

#endif
