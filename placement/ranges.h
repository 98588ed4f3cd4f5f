/* Building the ranges of a plan's layers. Private to placement/. */
#ifndef HEARTH_PLACEMENT_RANGES_H
#define HEARTH_PLACEMENT_RANGES_H

#include "placement/plan.h"

/* Appends neurons [begin, end) to a rank's, whose ranges start at index `start`; what touches the last of them makes it
 * longer, nothing is no range. The caller has checked that they ascend. ST_NOMEM (logged). */
status ranges_add(struct plan *p, size_t start, int64_t begin, int64_t end);
/* Appends the ranges of a layer that is cut at bound[n_ranks + 1], and says where each rank's start. */
status ranges_cut(struct plan *p, const int64_t *bound, size_t first[PLAN_MAX_RANKS + 1]);

#endif
