/* OPT (Zhang et al., 2022): learned positions, biases everywhere. */
#include <inttypes.h>

#include "base/log.h"
#include "model/family.h"

/* Learned positions have a row for each; the first of a text is row 2 (fairseq kept two). */
static status read_positions(const struct keys *k, struct hparams *hp)
{
    const struct gguf_tensor *t = gguf_find_tensor(k->g, "position_embd.weight");
    hp->position_offset = 2;
    if (!t) {
        log_error("%s: tensor position_embd.weight: expected [%" PRId64 ", positions], found no such tensor",
                  gguf_path(k->g), hp->d_model);
        return ST_FORMAT;
    }
    if (t->dims[1] <= hp->position_offset || t->dims[1] > INT32_MAX) {
        log_error("%s: tensor position_embd.weight: expected 3 positions or more, found %" PRId64, gguf_path(k->g),
                  t->dims[1]);
        return ST_FORMAT;
    }
    if (hp->n_ctx_train > t->dims[1] - hp->position_offset)
        hp->n_ctx_train = t->dims[1] - hp->position_offset;
    return ST_OK;
}

const struct family family_opt = {
    .name = "opt",
    .positions = LEARNED,
    .norm = NORM_LAYER,
    .no_gate = true,
    .activation = ACT_RELU, .sparse_activation = ACT_RELU,
    .may_lack_eps = true, /* PowerInfer's converter leaves it out; all OPT models have the usual one */
    .qkv_bias = ALWAYS, .o_bias = ALWAYS, .ffn_bias = ALWAYS,
    .read = read_positions,
};
