/* Own neurons of layers with experts: which of their sets a step's tokens need only the GPU knows, so every launch
 * covers all that these may have chosen (kernels/cuda/shares.h). */
#ifndef HEARTH_DEVICE_CUDA_EXPERTS_H
#define HEARTH_DEVICE_CUDA_EXPERTS_H

#include "device/cuda/fire.h"
#include "device/cuda/input.h"
#include "kernels/cuda/shares.h"

struct ranges;

enum { MOST_SET_TYPES = 4 };         /* of gates and ups, of experts and of what is shared */

/* Types of matrices among the sets of a layer. */
struct set_types {
    enum dtype of[MOST_SET_TYPES];
    int n;
};

/* What is known of a layer's sets: bounds for launches. */
struct expert_layer {
    struct gpu_set *sets;            /* [n_sets] */
    int n_sets;                      /* 0: the layer has no experts, or none here */
    int experts, of_expert, shared;  /* sets of experts, the most of one, and of what is shared */
    int rows, slots, ranges;
    bool gate_planes, up_planes;
    struct set_types packed, gate_rows, up_rows; /* of gates and ups together; of those that are read one by one */
    struct set_types down, columns;
};

struct experts {
    struct expert_layer *layers;     /* host [n_layers] */
    struct gpu_share *of;            /* [the most sets of a layer] */
    uint32_t *n, *token;             /* [n experts_used] */
    float *weight;                   /* [n experts_used + n] */
    struct acts gathered;            /* [n experts_used, d] */
    int64_t neurons;                 /* that a token needs of a layer, at most */
};

/* ST_NOMEM (logged). */
status cuda_experts_new(const struct cuda *c, struct experts *e);
void cuda_experts_free(struct experts *e); /* {0} is fine */
/* Tables of a layer's sets, whose weights are laid. */
void cuda_experts_lay(struct cuda *c, struct experts *e, const struct held_neurons *held, int layer);
/* neurons: that a token needs of a layer, at most. */
void cuda_experts_lay_buffers(struct cuda *c, struct experts *e, int64_t neurons);
/* The same sets, loaded. ranges: of all that are held. */
void cuda_experts_load(const struct cuda *c, struct loading *l, struct experts *e, const struct held_neurons *held,
                       const struct ranges *ranges, int layer);
static inline bool cuda_experts_has(const struct experts *e, int layer) { return e->layers[layer].n_sets > 0; }

/* sums = the part of the layer's own neurons; counts: the layer's. */
void cuda_experts_compute(struct cuda *c, const struct experts *e, struct firing *f, int layer, const struct input *in,
                          uint32_t n, struct gpu_counts *counts, const struct gpu_sums *sums);

#endif
