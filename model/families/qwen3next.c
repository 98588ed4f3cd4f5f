/* Qwen3-Next (2025) and Qwen3.5 (2026), this with experts or without: three of four layers are gated delta nets, the
 * others attention whose output has a gate. */
#include "model/family.h"
#include "model/layers.h"

static status read_in_turn(const struct keys *k, struct hparams *hp)
{
    hp->delta.in_turn = true;
    return layers_delta(k, hp);
}

static const struct expert_family experts = {.router = {.score = ROUTER_SOFTMAX, .normed = true, .scale = 1},
                                             .shared_routed = true};

const struct family family_qwen3next = {
    .name = "qwen3next",
    .positions = HALVES,
    .activation = ACT_SILU, .sparse_activation = ACT_RELU,
    .experts = &experts,
    .ffn_norm = "post_attention_norm",
    .gated = true, .beta_alpha = true,
    .head_norms = ALWAYS,
    .predictors = true,
    .read = layers_delta,
};

const struct family family_qwen35 = {
    .name = "qwen35",
    .positions = HALVES,
    .activation = ACT_SILU, .sparse_activation = ACT_RELU,
    .ffn_norm = "post_attention_norm",
    .gated = true,
    .head_norms = ALWAYS,
    .predictors = true,
    .read = read_in_turn,
};

const struct family family_qwen35moe = {
    .name = "qwen35moe",
    .positions = HALVES,
    .activation = ACT_SILU, .sparse_activation = ACT_RELU,
    .experts = &experts,
    .ffn_norm = "post_attention_norm",
    .gated = true,
    .head_norms = ALWAYS,
    .predictors = true,
    .read = read_in_turn,
};
