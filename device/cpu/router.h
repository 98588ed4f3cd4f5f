/* Which experts tokens are given to (Shazeer et al., Outrageously Large Neural Networks, 2017; Fedus et al., Switch
 * Transformers, 2021; groups and a bias for choosing: DeepSeek-V3, 2024).
 *
 * In this order, all in f32: logits = rows times x (matmul's order, kernels.h), + bias. Scores p: softmax over all
 * (kernels.h), or 1 / (1 + exp(-logit)) with the exp of base/exactmath.h, or the logits. s = p + choice bias. Of groups
 * those count whose largest s + second largest is largest. Chosen: the largest s; of equal ones, experts or groups, the
 * first. Weights: p of the chosen; or the softmax over their logits, the best first. Where normed: divided by their
 * sum, the best first, 2^-14 at least. Times the scale where it is not 1. What is shared weighs the sigmoid of its own
 * row's logit. */
#ifndef HEARTH_DEVICE_CPU_ROUTER_H
#define HEARTH_DEVICE_CPU_ROUTER_H

#include "device/cpu/input.h"
#include "device/router_weights.h"

/* What all layers compute in. */
struct routing {
    float *logits;                   /* [n, n_experts + 1] the last for what is shared */
    float *scores;                   /* [n, n_experts] */
};

void routing_lay(struct cpu *c, struct routing *r);
/* out = the experts of the work's tokens, from x [n, d]. ST_NAN: logits, or scores, are no numbers (logged). */
status route(struct cpu *c, const struct routing *r, const struct router_weights *weights, const struct work *w,
             const float *x, const struct routes *out);

#endif
