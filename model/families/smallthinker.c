/* SmallThinker (Song et al., 2025): experts of ReLU, chosen before attention; every fourth layer sees all and has no
 * positions, the others slide. */
#include "model/family.h"

/* llama.cpp takes 4096 tokens whatever the key says; without it no layer slides, and all have positions. */
static status read_layers(const struct keys *k, struct hparams *hp)
{
    enum { EVERY = 4, WINDOW = 4096 };
    status s = optional_int(k, "attention.sliding_window", 0, INT32_MAX, &hp->window);
    if (s != ST_OK || hp->window == 0)
        return s;
    hp->window = WINDOW;
    for (int i = 0; i < hp->n_layers; i++)
        hp->layer[i] = (struct layer_shape){.slides = i % EVERY != 0, .rope = i % EVERY ? 0 : NO_ROPE};
    return ST_OK;
}

static const struct expert_family smallthinker_experts = {
    .router = {.score = ROUTER_SOFTMAX, .normed = true, .early = true, .scale = 1},
    .reads_score = true,
};

const struct family family_smallthinker = {
    .name = "smallthinker",
    .positions = HALVES,
    .activation = ACT_RELU, .sparse_activation = ACT_RELU,
    .experts = &smallthinker_experts,
    .qkv_bias = MAYBE,
    .read = read_layers,
};
