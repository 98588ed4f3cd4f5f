/* gpt-oss (OpenAI, 2025): experts in MXFP4, sinks, every other layer slides, YaRN, biases everywhere. */
#include "model/family.h"
#include "model/layers.h"

static status read_gpt_oss(const struct keys *k, struct hparams *hp)
{
    status s = layers_slide(k, hp, 2);
    return s == ST_OK ? layers_turn(k, hp, hp->rope[0]) : s;
}

const struct family family_gpt_oss = {
    .name = "gpt-oss",
    .positions = HALVES,
    .activation = ACT_SILU, .sparse_activation = ACT_SILU,
    .ffn_norm = "post_attention_norm",
    .qkv_bias = MAYBE, .o_bias = ALWAYS,
    .sinks = true,
    .read = read_gpt_oss,
};
