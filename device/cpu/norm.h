/* The norm of the residual stream in front of a block: RMS norm (Zhang and Sennrich, 2019) or layer norm (Ba et al.,
 * 2016). */
#ifndef HEARTH_DEVICE_CPU_NORM_H
#define HEARTH_DEVICE_CPU_NORM_H

#include "device/cpu/cpu.h"
#include "device/loading.h"

/* The weights of a norm; hp.norm says of which kind. */
struct norm_weights {
    float *weight, *bias;            /* [d]; NULL: none. Without a weight x stays as it is */
};

struct norm_weights norm_lay(struct cpu *c, const struct matrix *weight, const struct matrix *bias);
void norm_load(struct loading *l, struct norm_weights to, const struct matrix *weight, const struct matrix *bias);
/* out[i] = the norm of the work's token i of x, quantised too if kernels will read it so. Whether all are numbers. */
bool norm_tokens(struct cpu *c, struct norm_weights weights, const float *x, const struct work *w, struct acts *out);

#endif
