/* Which GPU each rank has, what it can hold, and giving every rank's what gains most. */
#include "placement/gpu_benefit.h"

#include <string.h>

const struct probe_gpu *gpu_benefit_gpu(const struct probe *p, int rank)
{
    const struct probe_gpu *of[PLAN_MAX_RANKS] = {NULL};
    for (int r = 0; r <= rank; r++) {
        const struct probe_rank *own = &p->ranks[r];
        for (int i = 0; i < own->n_gpus && !of[r]; i++) {
            bool taken = false;
            for (int other = 0; other < r; other++)
                taken |= of[other] && strcmp(of[other]->id, own->gpus[i].id) == 0;
            of[r] = taken ? NULL : &own->gpus[i];
        }
    }
    return of[rank];
}

double gpu_benefit_room(const struct cost_model *m, const struct probe_gpu *g)
{
    enum { SPARE = 256 << 20 };
    const uint64_t budget = m->vram_budget && m->vram_budget < g->memory_bytes ? m->vram_budget : g->memory_bytes;
    const uint64_t work = m->vram_budget ? budget / 16 : SPARE; /* a guess: whoever has the GPU counts it to the byte */
    return budget > work ? (double)(budget - work) : 0;
}

status gpu_benefit_give_all(const struct probe *p, const struct cost_model *m, struct plan *plan)
{
    status st = ST_OK;
    for (int r = 0; r < plan->n_ranks && st == ST_OK; r++) {
        const struct probe_gpu *g = gpu_benefit_gpu(p, r);
        if (g && plan_takes_part(plan, r))
            st = gpu_benefit_give(p, m, plan, r, g->device, gpu_benefit_room(m, g));
    }
    return st;
}
