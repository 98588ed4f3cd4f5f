/* AVX-512 with VNNI: Intel servers since 2019, AMD since Zen 4. */
#include "kernels/x86/avx512_vec.h"

#include "kernels/rows.h"
#include "kernels/scalar_parts.h"
#include "kernels/tables.h"
#include "kernels/x86/vec_attention.h"
#include "kernels/x86/vec_columns.h"
#include "kernels/x86/vec_delta.h"
#include "kernels/x86/vec_matmul.h"
#include "kernels/x86/vec_ops.h"
#include "kernels/x86/vec_rows.h"

const struct kernels kernels_avx512 = {
    .name = "avx512",
    .quantize = quantize,
    .sum_blocks = sum_blocks,
    .matmul = matmul,
    .matmul_partial = matmul_partial,
    .sum_widths = sum_widths,
    .pack_sums = pack_sums,
    .add_packed = add_packed,
    .mix_columns = mix_columns,
    .spread = spread_acts,
    .dot_rows = dot_rows,
    .estimate_rows = estimate_rows,
    .rms_norm = rms_norm,
    .layer_norm = layer_norm,
    .rope = rope,
    .activate = activate,
    .softcap = softcap,
    .add = add,
    .to_f16 = to_f16,
    .attn_scores = attn_scores,
    .softmax = softmax,
    .attn_weights = attn_weights,
    .attn_mix = attn_mix,
    .sigmoid_gate = sigmoid_gate,
    .convolve = convolve,
    .delta_step = delta_step,
    .read_words = read_words,
};
