/* Llama (Touvron et al., 2023), and who took its name: Mistral, SmolLM2, ProSparse and many more; Bamboo, which differs
 * in nothing but its activation. */
#include "model/family.h"

/* Mistral 7B (Jiang et al., 2023) has a window in all layers, which llama.cpp does not read. */
static status read_window(const struct keys *k, struct hparams *hp)
{
    status s = optional_int(k, "attention.sliding_window", 0, INT32_MAX, &hp->window);
    for (int i = 0; i < hp->n_layers; i++)
        hp->layer[i].slides = hp->window > 0;
    return s;
}

/* Mixtral (Jiang et al., 2024). */
static const struct expert_family mixtral_experts = {.router = {.score = ROUTER_SOFTMAX, .normed = true, .scale = 1},
                                                     .may_have_none = true, .dense_width = true};

const struct family family_llama = {
    .name = "llama",
    .activation = ACT_SILU, .sparse_activation = ACT_RELU,
    .qkv_bias = MAYBE, .o_bias = MAYBE, .ffn_bias = MAYBE,
    .rope_factors = true,
    .experts = &mixtral_experts,
    .read = read_window,
};

const struct family family_bamboo = {
    .name = "bamboo",
    .activation = ACT_DRELU, .sparse_activation = ACT_DRELU,
    .qkv_bias = MAYBE, .o_bias = MAYBE,
};
