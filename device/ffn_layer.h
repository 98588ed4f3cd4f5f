/* What a device holds of a layer's FFN for a set of neurons: which matrices and vectors, of which shapes, as the layer
 * decides which neurons are computed. */
#ifndef HEARTH_DEVICE_FFN_LAYER_H
#define HEARTH_DEVICE_FFN_LAYER_H

#include "device/decisions.h"
#include "device/down.h"
#include "kernels/rows.h"

/* In a layer without a gate, up is in its place and `up` is empty. */
struct ffn_layer {
    const struct bundle *of;           /* whose neurons they are */
    struct neuron_set set;
    enum decision decision;
    bool has_gate;
    struct packed gate, up;            /* [n, d] where all are computed */
    struct neuron_rows gate_rows, up_rows; /* [n, d] where single ones are */
    float *bias, *up_bias;             /* [n] of the gate's place, of up where there is a gate; or NULL */
    struct packed fc1, fc2;            /* [r, d], [n, r] */
    float fc2_threshold;
    float *bound;                      /* [n] DECIDE_ESTIMATE */
    float *gate_slope, *gate_offset;   /* [n] DECIDE_PRODUCT: what estimates of the gate stand for */
    float *up_slope, *up_offset;       /* [n] the same of up, times the neuron's weight */
    float skip;                        /* products that are smaller */
    struct down down;
    uint64_t seen, fired;              /* where a layout may change: pairs of a neuron and a token so far, that fired */
};

/* down: with their down projection. */
void ffn_layer_lay(const struct laying *to, int layer, const struct neuron_list *neurons, bool down,
                   struct ffn_layer *s);
void ffn_layer_load(struct loading *l, int layer, struct ffn_layer *s);
void ffn_layer_free(struct ffn_layer *s);
/* Bytes of what is read for a step whatever fires, but for the down projection. */
uint64_t ffn_layer_fixed_bytes(const struct ffn_layer *s);

#endif
