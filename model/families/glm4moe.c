/* GLM-4.5 to 4.7 (Zhipu AI, 2025): half of each head turns; norms of q and k in the largest alone; experts chosen by
 * sigmoid with a bias, and shared ones. */
#include "model/family.h"

const struct family family_glm4moe = {
    .name = "glm4moe",
    .positions = HALVES,
    .activation = ACT_SILU, .sparse_activation = ACT_RELU,
    .ffn_norm = "post_attention_norm",
    .qkv_bias = MAYBE,
    .head_norms = MAYBE,
    .predictors = true,
};
