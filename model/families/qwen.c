/* Qwen 2 (biases of q, k and v) and 3 (norms of q and k head by head), dense and with experts. Files carry the key of a
 * window although their layers do not use it. */
#include "model/family.h"

const struct family family_qwen2 = {
    .name = "qwen2",
    .positions = HALVES,
    .activation = ACT_SILU, .sparse_activation = ACT_RELU,
    .qkv_bias = ALWAYS, .o_bias = MAYBE,
};

const struct family family_qwen3 = {
    .name = "qwen3",
    .positions = HALVES,
    .activation = ACT_SILU, .sparse_activation = ACT_RELU,
    .qkv_bias = MAYBE, .o_bias = MAYBE,
    .head_norms = ALWAYS,
};

/* Weights as the softmax over all experts gives them. */
static const struct expert_family qwen2moe_experts = {.router = {.score = ROUTER_SOFTMAX, .scale = 1},
                                                      .shared_routed = true};

const struct family family_qwen2moe = {
    .name = "qwen2moe",
    .positions = HALVES,
    .activation = ACT_SILU, .sparse_activation = ACT_RELU,
    .experts = &qwen2moe_experts,
    .qkv_bias = MAYBE,
};

static const struct expert_family qwen3moe_experts = {.router = {.score = ROUTER_SOFTMAX, .normed = true, .scale = 1}};

const struct family family_qwen3moe = {
    .name = "qwen3moe",
    .positions = HALVES,
    .activation = ACT_SILU, .sparse_activation = ACT_RELU,
    .experts = &qwen3moe_experts,
    .qkv_bias = MAYBE, .o_bias = MAYBE,
    .head_norms = ALWAYS,
};
