/* gpt-oss (OpenAI, 2025): experts in MXFP4, sinks, every other layer slides, YaRN, biases everywhere. */
#include "model/family.h"
#include "model/layers.h"

static status read_gpt_oss(const struct keys *k, struct hparams *hp)
{
    status s = layers_slide(k, hp, 2);
    return s == ST_OK ? layers_turn(k, hp, hp->rope[0]) : s;
}

static const struct expert_family gpt_oss_experts = {.router = {.score = ROUTER_CHOSEN, .scale = 1}, .biases = true};

const struct family family_gpt_oss = {
    .name = "gpt-oss",
    .positions = HALVES,
    .activation = ACT_SWIGLU_CLAMPED, .sparse_activation = ACT_SWIGLU_CLAMPED,
    .experts = &gpt_oss_experts,
    .ffn_norm = "post_attention_norm",
    .qkv_bias = MAYBE, .o_bias = ALWAYS,
    .sinks = true,
    .read = read_gpt_oss,
};
