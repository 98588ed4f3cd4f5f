/* GLM-4.5 to 4.7 (Zhipu AI, 2025): half of each head turns; norms of q and k in the largest alone; experts chosen by
 * sigmoid with a bias, and shared ones. */
#include "model/family.h"

static const struct expert_family glm4moe_experts = {.router = {.score = ROUTER_SIGMOID, .scale = 1},
                                                     .reads_router = true, .shared_count = true, .choice_bias = ALWAYS};

const struct family family_glm4moe = {
    .name = "glm4moe",
    .positions = HALVES,
    .activation = ACT_SILU, .sparse_activation = ACT_RELU,
    .experts = &glm4moe_experts,
    .ffn_norm = "post_attention_norm",
    .qkv_bias = MAYBE,
    .head_norms = MAYBE,
    .predictors = true,
};
