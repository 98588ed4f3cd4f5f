/* The GPUs that this process can use. */
#ifndef HEARTH_NODE_GPUS_H
#define HEARTH_NODE_GPUS_H

#include "device/plugin.h"
#include "placement/plan.h"
#include "wire/wire.h"

struct gpus {
    const struct device_plugin *plugin; /* NULL: it is not there */
    int n;
    struct gpu_info at[WIRE_GPUS_MOST]; /* "cuda:0" is the first; capability 0: it cannot be used */
    int n_usable;
    char why[LOG_LINE_MAX];             /* none can be used: what is in the way */
};

/* Looks for them; the plug-in is that of `folder` (plugin_open). Logs nothing, but warns of a GPU that cannot be used
 * beside others that can. */
void gpus_find(const char *folder, struct gpus *out);

/* The GPU that a holder is; NULL: it is none of them, or no GPU. */
const struct gpu_info *gpus_of(const struct gpus *g, const struct plan *p, int holder);

#endif
