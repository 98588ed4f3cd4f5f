/* Ministral 3 and kin (Mistral AI, 2025): Llama with YaRN, and queries that grow with their position. */
#include "model/family.h"
#include "model/rope.h"

static status read_yarn(const struct keys *k, struct rope *r)
{
    double all = 0;
    status s = optional_float(k, "rope.scaling.yarn_beta_fast", 1e-6, 1e6, &r->beta_fast);
    if (s == ST_OK)
        s = optional_float(k, "rope.scaling.yarn_beta_slow", 1e-6, 1e6, &r->beta_slow);
    if (s == ST_OK)
        s = optional_float(k, "rope.scaling.yarn_log_multiplier", 0, 1e6, &all);
    if (s == ST_OK && r->yarn)
        r->magnitude /= rope_yarn_magnitude(r->scale, all);
    return s;
}

static status read_mistral3(const struct keys *k, struct hparams *hp)
{
    double temper = 0;
    status s = read_yarn(k, &hp->rope[0]);
    if (s == ST_OK)
        s = optional_float(k, "attention.temperature_scale", -1e6, 1e6, &temper);
    hp->temper = (float)temper;
    hp->temper_every = hp->rope_original;
    return s;
}

const struct family family_mistral3 = {
    .name = "mistral3",
    .activation = ACT_SILU, .sparse_activation = ACT_RELU,
    .qkv_bias = MAYBE, .o_bias = MAYBE, .ffn_bias = MAYBE,
    .rope_factors = true,
    .read = read_mistral3,
};
