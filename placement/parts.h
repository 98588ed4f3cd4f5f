/* What parts of a model weigh, and how long a rank's devices need for theirs. Private to placement/. */
#ifndef HEARTH_PLACEMENT_PARTS_H
#define HEARTH_PLACEMENT_PARTS_H

#include "placement/cost.h"

/* Bytes that a part holds, and of those, what a step reads. */
struct weight {
    double held, read;
};

/* A share of a layer's attention, with its keys and values; neurons of a layer, without their down projections unless
 * `down`, of which a step reads those of the experts that its tokens choose; a share of the output matrix; what lies on
 * the home of the first stage and is looked up. */
struct weight weight_of_heads(const struct cost_model *m, int layer, double share);
struct weight weight_of_neurons(const struct cost_model *m, int layer, struct neuron_range neurons, bool down);
struct weight weight_of_rows(const struct cost_model *m, double share);
struct weight weight_of_embedding(const struct cost_model *m);
/* Bytes of down projections that a step reads of a layer's neurons. */
double weight_of_down(const struct cost_model *m, int layer, struct neuron_range neurons);
/* How many of them fire at a step's tokens, each counted for every token at which it does. */
double neurons_that_fire(const struct cost_model *m, int layer, struct neuron_range neurons);

/* The share of a layer's heads, and of the output rows, that a holder has. */
double heads_share(const struct cost_model *m, const struct plan *p, int layer, int holder);
double rows_share(const struct cost_model *m, const struct plan *p, int holder);
/* Whether neurons of one layer weigh what those of the same numbers do in another. */
bool neurons_weigh_alike(const struct cost_model *m, int layer, int other);
/* Tokens of a step. */
double step_tokens(const struct cost_model *m);

/* Of a block, what is computed on the GPU and beside it; where x and the sums are. */
struct part {
    double cpu_bytes, gpu_bytes; /* that are read */
    int kernels;                 /* that the GPU's take */
    bool x_on_gpu;
};

/* Kernels of a block of each kind. */
enum { ATTENTION_KERNELS = 7, FFN_KERNELS = 6, OUTPUT_KERNELS = 2 };

/* x to the other side of PCIe, and sums back; `up`: x goes to the GPU. */
double round_ms(const struct cost_model *m, const struct probe_gpu *g, bool up);
/* The slower of both sides, which the one that has x waits for. cpu: bytes per ms. g NULL: there are no gpu_bytes. */
double part_ms(const struct cost_model *m, const struct probe_gpu *g, double cpu, const struct part *p);

#endif
