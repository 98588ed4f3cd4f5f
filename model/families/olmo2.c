/* OLMo 2 and 3 (Ai2, 2024, 2025): norms after blocks instead of before; q and k are normed before they are heads. In
 * OLMo 3 three of four layers slide, and turn without the scaling of the others. */
#include "model/family.h"
#include "model/layers.h"
#include "model/rope.h"

static status read_olmo2(const struct keys *k, struct hparams *hp)
{
    struct rope near = rope_unscaled(&hp->rope[0]);
    near.magnitude = 1;
    status s = layers_slide(k, hp, 4);
    return s == ST_OK ? layers_turn(k, hp, near) : s;
}

const struct family family_olmo2 = {
    .name = "olmo2",
    .positions = HALVES,
    .activation = ACT_SILU, .sparse_activation = ACT_RELU,
    .qkv_bias = MAYBE,
    .head_norms = ALWAYS, .whole_norms = true,
    .post_norms = true, .no_norms = true,
    .read = read_olmo2,
};
