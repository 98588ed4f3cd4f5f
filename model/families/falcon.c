/* Falcon (Almazrouei et al., 2023): attention and FFN read the same norm of the layer's input, or, from 40B on, each
 * its own: then attn_norm is the FFN's and attn_norm_2 attention's. */
#include "model/family.h"

const struct family family_falcon = {
    .name = "falcon",
    .positions = HALVES,
    .norm = NORM_LAYER,
    .no_gate = true, .parallel = true,
    .activation = ACT_RELU, .sparse_activation = ACT_RELU, .other_activation = true,
    .attn_norm_2 = true, .ffn_norm = "attn_norm",
    .fused_qkv = true,
};
