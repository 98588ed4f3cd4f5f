/* A set of own neurons of a layer. */
#ifndef HEARTH_DEVICE_CUDA_FFN_LAYER_H
#define HEARTH_DEVICE_CUDA_FFN_LAYER_H

#include "device/cuda/down.h"
#include "device/decisions.h"
#include "kernels/rows.h"

/* In a layer without a gate, up is in its place and `up` is empty. */
struct ffn_layer {
    struct held held;
    enum decision decision;
    bool has_gate;
    struct packed gate, up;            /* [n, d] where all are computed */
    struct neuron_rows gate_rows, up_rows; /* [n, d] where single ones are */
    float *bias;                       /* [n] of the gate's place, or NULL */
    struct packed fc1, fc2;            /* [r, d], [n, r] */
    float fc2_threshold;
    float *bound;                      /* [n] DECIDE_ESTIMATE */
    float *gate_slope, *gate_offset;   /* [n] DECIDE_PRODUCT: what estimates of the gate stand for */
    float *up_slope, *up_offset;       /* [n] the same of up, times the neuron's weight */
    float skip;                        /* products that are smaller */
    struct down down;
    uint64_t calls;                    /* since the GPU's counts were seen to grow */
    struct gpu_counts reported;        /* what the GPU had counted then */
};

/* down: with their down projection. */
void cuda_ffn_layer_lay(struct cuda *c, int layer, const struct neuron_list *neurons, bool down, struct ffn_layer *s);
void cuda_ffn_layer_load(struct loader *l, int layer, struct ffn_layer *s);
void cuda_ffn_layer_free(struct ffn_layer *s);

#endif
