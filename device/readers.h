/* Who reads what, and in which form: for the devices. Whoever makes an activation, sends it or takes it asks here, and
 * nobody else decides: a reader that one of them did not think of would find the codes of some other token. */
#ifndef HEARTH_DEVICE_READERS_H
#define HEARTH_DEVICE_READERS_H

#include "device/device.h"
#include "model/model.h"

enum operand {
    X_OF_ATTENTION, X_OF_FFN, X_OF_OUTPUT, /* what a part is asked with */
    RESIDUAL,  /* what a PowerInfer model's predictor reads */
    MIXED,     /* what attention gives its output projection */
    HIDDEN,    /* an MLP's hidden values */
    ACTIVATED  /* what neurons give the down projection */
};

/* Codes, floats, or both. */
struct readers {
    bool q8, f32;
};

/* Who reads an activation of a layer (0 where there is none), on any rank. */
struct readers readers_of(const struct device_options *o, enum operand what, int layer);
enum operand x_of(enum device_part part);
/* The predictor's matrices of a layer: the neuron file's, else the model's own in a PowerInfer file. */
void mlp_of(const struct device_options *o, int layer, const struct matrix **fc1, const struct matrix **fc2);

#endif
