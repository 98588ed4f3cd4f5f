#include "node/gpus_measure.h"

#include <stdio.h>

#include "base/log.h"

static status measure(const struct gpus *g, int i, struct probe_gpu *out)
{
    const struct gpu_info *gpu = &g->at[i];
    struct gpu_speed s;
    char why[LOG_LINE_MAX];
    status st = g->plugin->measure(i, &s, why);
    if (st) {
        log_warn("%s: it is left out", why);
        return st;
    }
    *out = (struct probe_gpu){.memory_bytes = gpu->free_bytes, .read_gb_per_s = s.read_gb_per_s,
                              .up_gb_per_s = s.up_gb_per_s, .down_gb_per_s = s.down_gb_per_s,
                              .launch_us = s.launch_us, .wait_us = s.wait_us};
    snprintf(out->device, sizeof out->device, "cuda:%d", i % PROBE_MAX_GPUS);
    snprintf(out->name, sizeof out->name, "%s", gpu->name);
    for (size_t b = 0; b < sizeof gpu->id; b++)
        snprintf(out->id + 2 * b, sizeof out->id - 2 * b, "%02x", gpu->id[b]);
    return ST_OK;
}

void gpus_measure(const struct gpus *g, struct probe_rank *out)
{
    out->n_gpus = 0;
    if (g->n && !g->n_usable) /* gpus_find speaks of one beside others */
        log_warn("%s: it is left out", g->why);
    for (int i = 0; i < g->n && out->n_gpus < PROBE_MAX_GPUS; i++)
        if (g->at[i].capability && measure(g, i, &out->gpus[out->n_gpus]) == ST_OK)
            out->n_gpus++;
}
