/* Building the sets of a plan's layers. Private to placement/. */
#ifndef HEARTH_PLACEMENT_RANGES_H
#define HEARTH_PLACEMENT_RANGES_H

#include "placement/plan.h"

/* Appends neurons [begin, end) to a set whose ranges start at index `start`; what touches the last of them makes it
 * longer, nothing is no range. The caller has checked that they ascend. ST_NOMEM (logged). */
status ranges_add(struct plan *p, size_t start, int64_t begin, int64_t end);

/* Makes the ranges from `start` on a set of this holder; no ranges are no set. ST_NOMEM (logged). */
status sets_add(struct plan *p, int holder, size_t start);
/* Gives each holder h the set that it has of a layer's bundles: of each what lies between bound[h] and bound[h + 1].
 * ST_NOMEM (logged). */
status sets_cut(struct plan *p, const int64_t *bound /* [n_bundles, n_holders + 1] */, int n_bundles,
                struct plan_layer *layer);
/* Ends a layer whose sets are all that were added from first_set on: finds what each holder has. ST_NOMEM (logged). */
status sets_end(struct plan *p, struct plan_layer *layer);

/* Gives all of a layer's sets that one holder has to another, which has none. ST_NOMEM (logged). */
status sets_move(struct plan *p, struct plan_layer *layer, int from, int to);

/* Deals a layer with experts out anew, by whole units: those whose neurons fire most to its stage, up to about
 * part[stage] neurons, the others to the ranks in turn, so that each has about part[rank]. ST_NOMEM (logged). */
status hot_deal_experts(struct plan *p, struct plan_layer *layer, const float *fired /* [its neurons] */,
                        const int64_t *part /* [n_ranks] */);

/* What is wrong with a layer's sets. */
struct sets_fault {
    int64_t neuron; /* -1: nothing, each is in one set */
    int set, other; /* that both have it, of the layer's; -1: none has */
};

/* Whether a layer's sets, merged, are all of its neurons, each once. ST_NOMEM (logged). */
status sets_check(const struct plan *p, const struct plan_layer *layer, struct sets_fault *fault);

#endif
