#include "node/gpus.h"

#include <stdlib.h>
#include <string.h>

void gpus_find(const char *folder, struct gpus *out)
{
    *out = (struct gpus){0};
    if (plugin_open(folder, &out->plugin, out->why))
        return;
    const int n = out->plugin->count(out->why);
    out->n = n < WIRE_GPUS_MOST ? n : WIRE_GPUS_MOST;
    for (int i = 0; i < out->n; i++)
        out->n_usable += out->plugin->describe(i, &out->at[i], out->why) == ST_OK;
    if (out->n_usable && out->n_usable < out->n)
        log_warn("%s: it is not used", out->why);
}

const struct gpu_info *gpus_of(const struct gpus *g, const struct plan *p, int holder)
{
    const char *device = plan_holder_device(p, holder);
    const int i = strncmp(device, "cuda:", 5) == 0 ? atoi(device + 5) : g->n;
    return i < g->n && g->at[i].capability ? &g->at[i] : NULL;
}
