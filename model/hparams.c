/* Hyper-parameters from the keys of a GGUF; names and defaults are those of llama.cpp's loader. */
#include "model/hparams.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/log.h"
#include "model/experts.h"
#include "model/family.h"
#include "model/gguf_parts.h"
#include "model/rope.h"

static status read_heads(const struct keys *k, struct hparams *hp)
{
    status s = required_int(k, "attention.head_count", 1, MAX_HEADS, &hp->n_heads);
    if (s != ST_OK)
        return s;
    hp->n_kv_heads = hp->n_heads;
    if ((s = optional_int(k, "attention.head_count_kv", 1, hp->n_heads, &hp->n_kv_heads)) != ST_OK)
        return s;
    if (hp->n_heads % hp->n_kv_heads)
        return bad_key(k, ST_FORMAT, "attention.head_count_kv", "expected a divisor of the %" PRId64
                       " heads, found %" PRId64, hp->n_heads, hp->n_kv_heads);
    hp->head_dim = 0;
    if ((s = optional_int(k, "attention.key_length", 1, MAX_HEAD_DIM, &hp->head_dim)) != ST_OK)
        return s;
    if (hp->head_dim == 0) {
        hp->head_dim = hp->d_model / hp->n_heads;
        if (hp->d_model % hp->n_heads || hp->head_dim > MAX_HEAD_DIM)
            return bad_key(k, ST_FORMAT, "attention.head_count", "expected a divisor of embedding_length %" PRId64
                           " that gives heads of at most %d, found %" PRId64, hp->d_model, MAX_HEAD_DIM, hp->n_heads);
    }
    hp->value_dim = hp->head_dim;
    if ((s = optional_int(k, "attention.value_length", 1, MAX_HEAD_DIM, &hp->value_dim)) != ST_OK)
        return s;
    if (hp->value_dim != hp->head_dim)
        return bad_key(k, ST_UNSUPPORTED, "attention.value_length", "expected %" PRId64 " as for keys, found %" PRId64,
                       hp->head_dim, hp->value_dim);
    return ST_OK;
}

/* Every query head can be cut from the others. In files of before 2025-04 lengths are of heads as all models have
 * them. */
static status read_latent_heads(const struct keys *k, struct hparams *hp)
{
    const bool mla = has_key(k, "attention.key_length_mla");
    status s = required_int(k, "attention.head_count", 1, MAX_HEADS, &hp->n_heads);
    hp->n_kv_heads = hp->n_heads;
    if (s == ST_OK)
        s = required_int(k, "attention.kv_lora_rank", 1, MAX_HEAD_DIM, &hp->latent.rank);
    if (s == ST_OK)
        s = optional_int(k, "attention.q_lora_rank", 0, MAX_D_MODEL, &hp->latent.q_rank);
    if (s == ST_OK)
        s = required_int(k, mla ? "attention.key_length_mla" : "attention.key_length", 1, MAX_HEAD_DIM, &hp->head_dim);
    if (s == ST_OK)
        s = required_int(k, mla ? "attention.value_length_mla" : "attention.value_length", 1, MAX_HEAD_DIM,
                         &hp->value_dim);
    if (s == ST_OK && (hp->latent.rank % 16 || hp->value_dim % 16))
        return bad_key(k, ST_UNSUPPORTED, "attention.kv_lora_rank",
                       "expected a multiple of 16, of values too, found %" PRId64 " and %" PRId64, hp->latent.rank,
                       hp->value_dim);
    return s;
}

static status read_sizes(const struct keys *k, struct hparams *hp)
{
    int64_t n_layers = 0;
    status s = required_int(k, "block_count", 1, MAX_LAYERS, &n_layers);
    if (s == ST_OK)
        s = required_int(k, "embedding_length", 1, MAX_D_MODEL, &hp->d_model);
    if (s != ST_OK)
        return s;
    int64_t predictors = 0;
    if (hp->family->predictors)
        s = optional_int(k, "nextn_predict_layers", 0, n_layers - 1, &predictors);
    if (s != ST_OK)
        return s;
    hp->n_layers = (int)(n_layers - predictors);
    hp->n_predictors = (int)predictors;
    s = required_int(k, "feed_forward_length", 1, MAX_D_FF, &hp->d_ff);
    if (s == ST_OK)
        s = read_experts(k, hp);
    return s == ST_OK ? required_int(k, "context_length", 1, INT32_MAX, &hp->n_ctx_train) : s;
}

static status read_norm_eps(const struct keys *k, struct hparams *hp)
{
    double eps = 1e-5;
    const char *name = hp->norm == NORM_RMS ? "attention.layer_norm_rms_epsilon" : "attention.layer_norm_epsilon";
    if (!has_key(k, name) && !hp->family->may_lack_eps)
        return bad_key(k, ST_FORMAT, name, "expected a float, found no such key");
    status s = optional_float(k, name, 1e-30, 1, &eps);
    if (s == ST_OK)
        hp->norm_eps = (float)eps;
    return s;
}

static status read_threshold(const struct gguf *g, struct hparams *hp)
{
    const struct keys k = {g, "powerinfer"};
    double threshold = 0;
    status s = optional_float(&k, "sparse_threshold", -1e30, 1e30, &threshold);
    hp->sparse_threshold = (float)threshold;
    return s;
}

/* Every token id of the file must have a row in the embedding; spare rows are fine. */
static status read_vocab(const struct keys *k, struct hparams *hp)
{
    const struct gguf_tensor *t = gguf_find_tensor(k->g, "token_embd.weight");
    if (!t) {
        log_error("%s: tensor token_embd.weight: expected [%" PRId64 ", vocabulary], found no such tensor",
                  gguf_path(k->g), hp->d_model);
        return ST_FORMAT;
    }
    if (t->dims[1] > MAX_VOCAB) {
        log_error("%s: tensor token_embd.weight: expected at most %d rows, found %" PRId64, gguf_path(k->g), MAX_VOCAB,
                  t->dims[1]);
        return ST_FORMAT;
    }
    hp->n_vocab = t->dims[1];
    enum gguf_type type;
    uint64_t n;
    if (gguf_get_array(k->g, "tokenizer.ggml.tokens", &type, &n) && n > (uint64_t)hp->n_vocab) {
        log_error("%s: key tokenizer.ggml.tokens: expected at most %" PRId64
                  " tokens, the rows of token_embd.weight, found %" PRIu64, gguf_path(k->g), hp->n_vocab, n);
        return ST_FORMAT;
    }
    return ST_OK;
}

/* What the family says. */
static struct hparams of_family(const struct family *f, bool powerinfer)
{
    return (struct hparams){.family = f, .arch_name = f->name, .rope_neox = f->positions == HALVES, .norm = f->norm,
                            .embedding_scale = 1, .residual_scale = 1, .logit_scale = 1, .whole_norms = f->whole_norms,
                            .has_gate = !f->no_gate, .parallel = f->parallel, .gated = f->gated,
                            .activation = powerinfer ? f->sparse_activation : f->activation,
                            .activation_known = powerinfer || !f->other_activation};
}

status hparams_read(const struct gguf *g, struct hparams *out)
{
    const struct family *family;
    status s = family_of(g, &family);
    if (s != ST_OK)
        return s;
    const struct keys k = {g, family->name};
    struct hparams hp = of_family(family, gguf_is_powerinfer(g));
    s = read_sizes(&k, &hp);
    if (s == ST_OK)
        s = (family->latent ? read_latent_heads : read_heads)(&k, &hp);
    hp.attn_scale = 1.0f / sqrtf((float)hp.head_dim);
    if (s == ST_OK && family->positions != LEARNED)
        s = rope_read(&k, &hp);
    if (s == ST_OK)
        s = read_norm_eps(&k, &hp);
    if (s == ST_OK && gguf_is_powerinfer(g))
        s = read_threshold(g, &hp);
    if (s == ST_OK && family->read)
        s = family->read(&k, &hp);
    if (s == ST_OK)
        s = read_vocab(&k, &hp);
    if (s == ST_OK)
        *out = hp;
    return s;
}
