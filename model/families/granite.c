/* Granite 3 (IBM, 2024): Llama with a factor on embeddings, scores, what blocks add, and logits. */
#include <math.h>

#include "model/family.h"

/* 0 is a factor that is not there. */
static status read_factor(const struct keys *k, const char *name, float *out)
{
    double factor = 0;
    status s = optional_float(k, name, -1e6, 1e6, &factor);
    if (s == ST_OK && factor != 0)
        *out = (float)factor;
    return s;
}

static status read_factors(const struct keys *k, struct hparams *hp)
{
    bool turns = true;
    float logit_scale = 0;
    status s = read_factor(k, "embedding_scale", &hp->embedding_scale);
    if (s == ST_OK)
        s = read_factor(k, "residual_scale", &hp->residual_scale);
    if (s == ST_OK)
        s = read_factor(k, "attention.scale", &hp->attn_scale);
    if (s == ST_OK)
        s = read_factor(k, "logit_scale", &logit_scale);
    if (s == ST_OK)
        s = optional_bool(k, "rope.scaling.finetuned", &turns);
    if (s != ST_OK)
        return s;
    if (!has_key(k, "logit_scale"))
        return bad_key(k, ST_FORMAT, "logit_scale", "expected what logits are divided by, found no such key");
    if (fabsf(logit_scale) < 1e-6f) /* one over it may be no number */
        return bad_key(k, ST_FORMAT, "logit_scale", "expected what logits are divided by, 1e-06 at least, found %g",
                       (double)logit_scale);
    hp->logit_scale = 1 / logit_scale;
    for (int i = 0; i < hp->n_layers && !turns; i++)
        hp->layer[i].rope = NO_ROPE;
    return ST_OK;
}

const struct family family_granite = {
    .name = "granite",
    .activation = ACT_SILU, .sparse_activation = ACT_RELU,
    .qkv_bias = MAYBE, .o_bias = MAYBE, .ffn_bias = MAYBE,
    .rope_factors = true,
    .read = read_factors,
};
