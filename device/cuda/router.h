/* Which experts tokens are given to: device/cpu/router.h on the GPU. */
#ifndef HEARTH_DEVICE_CUDA_ROUTER_H
#define HEARTH_DEVICE_CUDA_ROUTER_H

#include "device/cuda/input.h"
#include "device/router_weights.h"
#include "kernels/cuda/router.h"

/* What of a layer's router the kernels know, but for its weights. */
struct gpu_router cuda_router_of(const struct cuda *c, int layer);
/* [n, n_experts + 1] logits, which all layers compute in; NULL: none has experts. */
float *cuda_logits_lay(struct cuda *c);
void cuda_routes_lay(struct cuda *c, struct gpu_routes *r);
/* Values of a token whose faults are noted: logits, scores. */
int64_t cuda_router_logits(const struct cuda *c, int layer);
/* out = the experts of n tokens, from x [n, d]. order: where logits that are no numbers are noted (struct gpu_fault);
 * of scores it is the next. */
void cuda_route(const struct cuda *c, float *logits, const struct router_weights *r, int layer, const float *x,
                int64_t n, uint32_t order, const struct gpu_routes *out);

#endif
