/* Which experts tokens are given to: the decisions of device/cpu/router.h, from logits that products give. */
#ifndef HEARTH_KERNELS_CUDA_ROUTER_H
#define HEARTH_KERNELS_CUDA_ROUTER_H

#include "kernels/cuda/gpu.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Experts that tokens have chosen, the best first, and what they weigh. */
struct gpu_routes {
    uint32_t *expert;        /* [n, used] */
    float *weight;           /* [n, n_weights] */
};

enum gpu_router_score { GPU_ROUTER_SOFTMAX, GPU_ROUTER_SIGMOID, GPU_ROUTER_CHOSEN };

struct gpu_router {
    enum gpu_router_score score;
    bool normed;
    bool weighs_shared;      /* each token's last logit is of what is shared, and becomes its last weight */
    float scale;
    int n_experts, used, n_weights;
    int n_groups, groups_used;
    const float *choice_bias;/* [n_experts] or NULL */
};

/* to = the choices of n tokens. logits [n, n_experts + weighs_shared], their biases added. What is no number is noted:
 * a logit, or else a score; what its token then has are experts that there are, and weights that are no numbers. */
void gpu_choose(const struct gpu *g, const struct gpu_router *r, const float *logits, int64_t n,
                const struct gpu_routes *to, struct gpu_fault of_logits, struct gpu_fault of_scores);

#ifdef __cplusplus
}
#endif

#endif
