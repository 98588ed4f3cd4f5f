/* What of a rank's part goes to its GPU: what gains most time for a byte of its memory.
 *
 * A rank computes two blocks a layer, attention and FFN, and its rows of the output matrix. Of a block its GPU and its
 * CPU compute their parts at the same time, and the one that does not have x gets it over PCIe and sends its sum back:
 *
 *     time of a block = max(CPU's bytes / bandwidth, GPU's bytes / bandwidth + kernels * launch)
 *     and on the side that has no x, before the max: + wait + x / PCIe one way + sums / PCIe the other way
 *
 * Of attention all or nothing goes to the GPU, with keys and values, which are held for the whole context and read for
 * half of it; of an FFN the units of neurons that fire most often, as many as pay: bytes of the gate are always read,
 * of the rest those of neurons that fire. So a block has a curve of time over bytes that lie on the GPU, and the steps
 * of its lower hull are what can be bought. They are taken in the order of their gain per byte, as long as there is
 * room; a step that has no room ends its block, not the others, with as many of its units as have. So the bytes end
 * where GPU and CPU take equally long, and a block of which the last neurons save the way over PCIe is given whole.
 *
 * Of experts that is so too where all their neurons are computed: some are chosen more often than others.
 *
 * Where no one knows how often neurons fire or experts are chosen, or all neurons are computed, or sets are not of
 * whole units, layers are given whole; what is then left of the room, attention or units of one more.
 *
 * That is done for both homes of x, and compared with two plainer orders, the first layers whole, and attention of all
 * layers before the neurons that fire most often, and with giving nothing: what is fastest is taken. */
#ifndef HEARTH_PLACEMENT_GPU_BENEFIT_H
#define HEARTH_PLACEMENT_GPU_BENEFIT_H

#include "placement/cost.h"

/* Gives a rank's `device` what gains most of what the rank's CPU has in the plan: weights, keys and values of at most
 * `bytes`. What the probe has not measured, all of it where p is NULL, is taken to be as usual. Where nothing fits, or
 * nothing gains on a GPU that was measured, the plan stays as it is; else the device is its last holder and perhaps the
 * rank's home. The same on every machine that is given the same. Errors of plan_give; the plan is then fit to be freed
 * only. */
status gpu_benefit_give(const struct probe *p, const struct cost_model *m, struct plan *plan, int rank,
                        const char *device, double bytes);

/* The same for every rank that has a GPU, its first that no rank before it on its host has, and as much as the probe
 * and m->vram_budget let it hold, less what work will take. */
status gpu_benefit_give_all(const struct probe *p, const struct cost_model *m, struct plan *plan);
/* Bytes that a GPU can hold so. */
double gpu_benefit_room(const struct cost_model *m, const struct probe_gpu *g);
/* The GPU that a rank has so; NULL: none. */
const struct probe_gpu *gpu_benefit_gpu(const struct probe *p, int rank);

#endif
