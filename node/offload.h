/* What of a rank's part of a plan goes to its GPU, where no plan file says so: whole layers, as many as are asked for
 * or fit, or single neurons. Each rank alone knows what its GPUs have free, so the ranks tell each other
 * (node/offers.h); then all make the same plan. */
#ifndef HEARTH_NODE_OFFLOAD_H
#define HEARTH_NODE_OFFLOAD_H

#include "node/cluster.h"
#include "node/gpus.h"
#include "node/planning.h"
#include "worker/worker.h"

/* What a rank could give to each of its GPUs: the layers that o->gpu_layers asks for or, unset, as many as fit into
 * what is free, or into o->vram_budget; where not all fit, or the probe has measured the GPU, what gains most; with
 * o->gpu_index instead all but neurons, and those that it marks. w: with a plan for CPUs alone, and with the GPUs' kind
 * of device; why: of that plan. ST_BUDGET (logged, saying what would fit) if what is asked for does not, ST_USAGE
 * (logged) if o->device asks for GPUs and there are none; errors of worker_memory. */
status offload_offer(const struct cluster_options *o, const struct worker_options *w, int rank, const struct gpus *g,
                     const struct plan_reasons *why, struct wire_gpus *out);

/* Gives each rank's part to its first GPU that no rank before it has: ranks of one host have one each. `all`: ST_USAGE
 * (logged) if one that has offered something gets none. ST_MISMATCH (logged) if one has chosen more than it has,
 * or by a split file that is not here. What ranks have chosen for themselves is not given where it is slower by the
 * probe for all of them together, unless `all`; what people have asked for on any rank is. Errors of plan_offload. */
status offload_apply(struct plan *p, const struct wire_gpus *offers, const struct plan_reasons *why, bool all);

/* What a plan that names GPUs needs of those of this rank, for the exchange. A GPU that is not there is none of them.
 * ST_BUDGET (logged) if one alone is too small; errors of worker_memory. */
status offload_needs(const struct worker_options *w, int rank, const struct gpus *g, struct wire_gpus *out);
/* Whether GPUs that several ranks have by the plan are large enough for all of them. ST_BUDGET (logged) if not. */
status offload_check(const struct wire_gpus *offers, int n_ranks);

/* Memory of a GPU that is left to the driver and to what shows the desktop, unless a budget says otherwise. */
enum { OFFLOAD_SPARE_BYTES = 256 << 20 };

#endif
