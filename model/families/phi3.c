/* Phi-3 and 4 (Abdin et al., 2024): Llama with q, k and v in one tensor and gate and up in one, and LongRoPE (Ding et
 * al., 2024). Files carry the key of a window, which llama.cpp does not use either. */
#include "model/family.h"

const struct family family_phi3 = {
    .name = "phi3",
    .positions = HALVES,
    .activation = ACT_SILU, .sparse_activation = ACT_RELU,
    .fused_gate = true,
    .qkv_bias = MAYBE,
    .rope_factors = true,
};
