/* DeepSeek-V2 and V3 (2024), R1, Kimi K2, GLM-4.7-Flash: latent attention and many experts. */
#include <inttypes.h>
#include <math.h>

#include "model/family.h"
#include "model/rope.h"

/* Scores grow with the scale of positions; cosines and sines do not where the file says how much. Converters write a
 * tenth of that. */
static status read_scale(const struct keys *k, struct hparams *hp)
{
    struct rope *r = &hp->rope[0];
    double tenth = 0;
    status s = optional_float(k, "rope.scaling.yarn_log_multiplier", 0, 1e6, &tenth);
    if (s != ST_OK)
        return s;
    if (tenth > 0 && r->yarn)
        r->magnitude /= rope_yarn_magnitude(r->scale, 1);
    const double m = r->magnitude * (r->yarn ? rope_yarn_magnitude(r->scale, tenth * 10) : 1);
    hp->attn_scale = (float)(m * m / sqrt((double)hp->head_dim));
    return ST_OK;
}

/* GLM-4.7-Flash says nothing of its router, which is not the usual one. */
static bool is_glm_flash(const struct keys *k, const struct hparams *hp)
{
    const struct gguf_tensor *t = gguf_find_tensor(k->g, "token_embd.weight");
    return hp->n_layers + hp->n_predictors >= 47 && hp->n_layers <= 48 && t && t->dims[1] == 154880;
}

static status read_deepseek2(const struct keys *k, struct hparams *hp)
{
    double temper = 0;
    hp->temper_every = 8192;
    if (hp->n_rot == hp->head_dim) /* queries come into the space of c by what does not turn */
        return bad_key(k, ST_UNSUPPORTED, "rope.dimension_count", "expected less than the key's %" PRId64 ", found %"
                       PRId64, hp->head_dim, hp->n_rot);
    status s = read_scale(k, hp);
    if (s == ST_OK)
        s = optional_float(k, "attention.temperature_scale", -1e6, 1e6, &temper);
    if (s == ST_OK)
        s = optional_int(k, "attention.temperature_length", 1, INT32_MAX, &hp->temper_every);
    hp->temper = (float)temper;
    if (!has_key(k, "expert_gating_func") && is_glm_flash(k, hp))
        hp->router.score = ROUTER_SIGMOID;
    return s;
}

static const struct expert_family deepseek2_experts = {.router = {.score = ROUTER_SOFTMAX, .scale = 1},
                                                       .reads_router = true, .may_have_none = true,
                                                       .shared_count = true, .choice_bias = MAYBE};

const struct family family_deepseek2 = {
    .name = "deepseek2",
    .activation = ACT_SILU, .sparse_activation = ACT_RELU,
    .experts = &deepseek2_experts,
    .latent = true,
    .predictors = true,
    .read = read_deepseek2,
};
