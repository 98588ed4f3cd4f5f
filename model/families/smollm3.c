/* SmolLM3 (Hugging Face, 2025): Llama without positions in every fourth layer (Yang et al., 2025). */
#include "model/family.h"

static status read_turns(const struct keys *k, struct hparams *hp)
{
    enum { EVERY = 4 };
    (void)k;
    for (int i = EVERY - 1; i < hp->n_layers; i += EVERY)
        hp->layer[i].rope = NO_ROPE;
    return ST_OK;
}

const struct family family_smollm3 = {
    .name = "smollm3",
    .activation = ACT_SILU, .sparse_activation = ACT_RELU,
    .qkv_bias = MAYBE, .o_bias = MAYBE,
    .read = read_turns,
};
