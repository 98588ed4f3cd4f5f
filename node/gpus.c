#include "node/gpus.h"

#include <stdio.h>
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
    for (int i = 0; i < g->n; i++) {
        char name[PLAN_DEVICE_BYTES];
        snprintf(name, sizeof name, "cuda:%d", i);
        if (g->at[i].capability && strcmp(plan_holder_device(p, holder), name) == 0)
            return &g->at[i];
    }
    return NULL;
}
