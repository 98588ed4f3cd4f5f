/* Gemma 2 and 3 (Gemma Team, 2024, 2025): norms before and after every block, GeGLU, layers that slide between such
 * that see all. Norms in files hold 1 + w. */
#include <math.h>

#include "model/family.h"
#include "model/layers.h"
#include "model/rope.h"

/* Embeddings come with the root of d_model; of the largest models scores are scaled as if heads parted d_model. */
static void scale(struct hparams *hp, int layers_of_27b)
{
    hp->embedding_scale = sqrtf((float)hp->d_model);
    if (hp->n_layers == layers_of_27b)
        hp->attn_scale = 1.0f / sqrtf((float)hp->d_model / (float)hp->n_heads);
}

static status read_cap(const struct keys *k, const char *name, double usual, float *out)
{
    status s = optional_float(k, name, 0, 1e6, &usual);
    *out = (float)usual;
    return s;
}

static status read_gemma2(const struct keys *k, struct hparams *hp)
{
    scale(hp, 46);
    hp->window = 4096;
    status s = layers_slide(k, hp, 2);
    if (s == ST_OK)
        s = layers_turn(k, hp, hp->rope[0]);
    if (s == ST_OK)
        s = read_cap(k, "attn_logit_softcapping", 50, &hp->attn_softcap);
    return s == ST_OK ? read_cap(k, "final_logit_softcapping", 30, &hp->logit_softcap) : s;
}

/* Layers that slide turn as models with short contexts did. */
static status read_gemma3(const struct keys *k, struct hparams *hp)
{
    struct rope near = rope_unscaled(&hp->rope[0]);
    near.base = 10000;
    scale(hp, 62);
    status s = layers_slide(k, hp, 6);
    if (s == ST_OK)
        s = layers_turn(k, hp, near);
    return s == ST_OK ? read_cap(k, "final_logit_softcapping", 0, &hp->logit_softcap) : s;
}

const struct family family_gemma2 = {
    .name = "gemma2",
    .positions = HALVES,
    .activation = ACT_GELU, .sparse_activation = ACT_RELU,
    .qkv_bias = MAYBE,
    .post_norms = true,
    .tied = true,
    .read = read_gemma2,
};

const struct family family_gemma3 = {
    .name = "gemma3",
    .positions = HALVES,
    .activation = ACT_GELU, .sparse_activation = ACT_RELU,
    .qkv_bias = MAYBE,
    .head_norms = ALWAYS,
    .post_norms = true,
    .read = read_gemma3,
};
