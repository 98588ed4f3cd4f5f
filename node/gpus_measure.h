/* How fast the GPUs of this process are, for hearth probe and bench. */
#ifndef HEARTH_NODE_GPUS_MEASURE_H
#define HEARTH_NODE_GPUS_MEASURE_H

#include "node/gpus.h"
#include "placement/probe.h"

/* Measures each GPU that can be used, one after the other, and puts them into out->gpus. Those that cannot be used or
 * measured are left out, with a warning that says why. */
void gpus_measure(const struct gpus *g, struct probe_rank *out);

#endif
