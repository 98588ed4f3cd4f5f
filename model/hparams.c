/* Hyper-parameters from the keys of a GGUF; names and defaults are those of llama.cpp's loader. */
#include "model/hparams.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "model/gguf_parts.h"

enum positions { ROPE_PAIRS, ROPE_NEOX, LEARNED };

static const struct arch_traits {
    const char *name;
    enum arch arch;
    enum positions positions;
    bool reads_window; /* the others' files carry the key although their layers do not use it */
    enum norm_kind norm;
    bool has_gate, parallel;
    /* In an ordinary file and in PowerInfer's. */
    enum activation activation, sparse_activation;
    bool other_activation; /* an ordinary file means one that hearth does not have */
} archs[] = {
    {"llama", ARCH_LLAMA, ROPE_PAIRS, true, NORM_RMS, true, false, ACT_SILU, ACT_RELU, false},
    {"qwen2", ARCH_QWEN2, ROPE_NEOX, false, NORM_RMS, true, false, ACT_SILU, ACT_RELU, false},
    {"qwen3", ARCH_QWEN3, ROPE_NEOX, false, NORM_RMS, true, false, ACT_SILU, ACT_RELU, false},
    {"qwen3moe", ARCH_QWEN3MOE, ROPE_NEOX, false, NORM_RMS, true, false, ACT_SILU, ACT_RELU, false},
    {"bamboo", ARCH_BAMBOO, ROPE_PAIRS, false, NORM_RMS, true, false, ACT_DRELU, ACT_DRELU, false},
    {"falcon", ARCH_FALCON, ROPE_NEOX, false, NORM_LAYER, false, true, ACT_RELU, ACT_RELU, true},
    {"opt", ARCH_OPT, LEARNED, false, NORM_LAYER, false, false, ACT_RELU, ACT_RELU, false},
};

enum { N_ARCHS = sizeof archs / sizeof *archs, KEY_SIZE = 96 };

struct keys {
    const struct gguf *g;
    const char *arch;
};

static const char *full_key(const struct keys *k, const char *name, char out[KEY_SIZE])
{
    snprintf(out, KEY_SIZE, "%s.%s", k->arch, name);
    return out;
}

/* Logs "FILE: key ARCH.NAME: DETAIL" and returns `code`. */
__attribute__((format(printf, 4, 5))) static status bad_key(const struct keys *k, status code, const char *name,
                                                            const char *format, ...)
{
    char key[KEY_SIZE], detail[256];
    va_list args;
    va_start(args, format);
    vsnprintf(detail, sizeof detail, format, args);
    va_end(args);
    log_error("%s: key %s: %s", gguf_path(k->g), full_key(k, name, key), detail);
    return code;
}

/* A value that a file gives once, or once a layer; the latter is accepted when all are equal. */
static status read_integer(const struct keys *k, const char *name, const char *key, int64_t *out)
{
    enum gguf_type type;
    uint64_t n;
    if (gguf_get_i64(k->g, key, out))
        return ST_OK;
    if (!gguf_get_array(k->g, key, &type, &n) || n == 0)
        return bad_key(k, ST_FORMAT, name, "expected an integer, found another value");
    int64_t first, other;
    if (!gguf_array_i64(k->g, key, 0, &first))
        return bad_key(k, ST_FORMAT, name, "expected integers, found an array of another type");
    for (uint64_t i = 1; i < n; i++)
        if (gguf_array_i64(k->g, key, i, &other) && other != first)
            return bad_key(k, ST_UNSUPPORTED, name, "expected the same value for every layer, found %" PRId64
                           " and %" PRId64, first, other);
    *out = first;
    return ST_OK;
}

/* Absent keys leave *out as it is. */
static status optional_int(const struct keys *k, const char *name, int64_t min, int64_t max, int64_t *out)
{
    char key[KEY_SIZE];
    int64_t v;
    if (!gguf_has_key(k->g, full_key(k, name, key)))
        return ST_OK;
    status s = read_integer(k, name, key, &v);
    if (s != ST_OK)
        return s;
    if (v < min || v > max)
        return bad_key(k, ST_FORMAT, name, "expected %" PRId64 " to %" PRId64 ", found %" PRId64, min, max, v);
    *out = v;
    return ST_OK;
}

static status required_int(const struct keys *k, const char *name, int64_t min, int64_t max, int64_t *out)
{
    char key[KEY_SIZE];
    if (!gguf_has_key(k->g, full_key(k, name, key)))
        return bad_key(k, ST_FORMAT, name, "expected an integer, found no such key");
    return optional_int(k, name, min, max, out);
}

static status optional_float(const struct keys *k, const char *name, double min, double max, double *out)
{
    char key[KEY_SIZE];
    double v;
    if (!gguf_has_key(k->g, full_key(k, name, key)))
        return ST_OK;
    if (!gguf_get_f64(k->g, key, &v))
        return bad_key(k, ST_FORMAT, name, "expected a float, found another value");
    if (!(v >= min && v <= max)) /* NaN fails too */
        return bad_key(k, ST_FORMAT, name, "expected %g to %g, found %g", min, max, v);
    *out = v;
    return ST_OK;
}

static status read_arch(const struct gguf *g, const struct arch_traits **out)
{
    struct gguf_string name;
    if (!gguf_get_string(g, "general.architecture", &name)) {
        log_error("%s: key general.architecture: expected a string, found %s", gguf_path(g),
                  gguf_has_key(g, "general.architecture") ? "another value" : "no such key");
        return ST_FORMAT;
    }
    char known[96] = "";
    for (int i = 0; i < N_ARCHS; i++) {
        if (strlen(archs[i].name) == name.n && !memcmp(archs[i].name, name.at, name.n)) {
            *out = &archs[i];
            return ST_OK;
        }
        size_t n = strlen(known);
        snprintf(known + n, sizeof known - n, "%s%s", i ? ", " : "", archs[i].name);
    }
    char found[64];
    gguf_printable(name.at, name.n, found, sizeof found);
    log_error("%s: architecture: expected one of %s, found '%s'", gguf_path(g), known, found);
    return ST_UNSUPPORTED;
}

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
    int64_t value_length = hp->head_dim;
    if ((s = optional_int(k, "attention.value_length", 1, MAX_HEAD_DIM, &value_length)) != ST_OK)
        return s;
    if (value_length != hp->head_dim)
        return bad_key(k, ST_UNSUPPORTED, "attention.value_length", "expected %" PRId64 " as for keys, found %" PRId64,
                       hp->head_dim, value_length);
    return ST_OK;
}

/* Linear scaling divides positions by a factor; 0 and absence mean 1. The other kinds change frequencies as well. */
static status read_rope_scaling(const struct keys *k, struct hparams *hp)
{
    char key[KEY_SIZE];
    struct gguf_string type = {"linear", 6};
    bool present = gguf_has_key(k->g, full_key(k, "rope.scaling.type", key));
    if (present && !gguf_get_string(k->g, key, &type))
        return bad_key(k, ST_FORMAT, "rope.scaling.type", "expected a string, found another value");
    bool none = type.n == 4 && !memcmp(type.at, "none", 4);
    bool linear = type.n == 6 && !memcmp(type.at, "linear", 6);
    if (!none && !linear) {
        char found[64];
        gguf_printable(type.at, type.n, found, sizeof found);
        return bad_key(k, ST_UNSUPPORTED, "rope.scaling.type", "expected none or linear, found '%s'", found);
    }
    double factor = 0, attn_factor = 1;
    status s = optional_float(k, "rope.scale_linear", 0, 1e6, &factor); /* the key's name of old */
    if (s == ST_OK)
        s = optional_float(k, "rope.scaling.factor", 0, 1e6, &factor);
    if (s == ST_OK)
        s = optional_float(k, "rope.scaling.attn_factor", -1e6, 1e6, &attn_factor);
    if (s != ST_OK)
        return s;
    if (attn_factor != 1)
        return bad_key(k, ST_UNSUPPORTED, "rope.scaling.attn_factor", "expected 1, found %g", attn_factor);
    if (factor > 0 && factor < 1e-6)
        return bad_key(k, ST_FORMAT, "rope.scaling.factor", "expected 0 or 1e-06 to 1e+06, found %g", factor);
    hp->rope_scale = none || factor == 0 ? 1 : 1 / factor;
    return ST_OK;
}

static status read_rope(const struct keys *k, struct hparams *hp)
{
    hp->n_rot = hp->head_dim;
    status s = optional_int(k, "rope.dimension_count", 1, MAX_HEAD_DIM, &hp->n_rot);
    if (s != ST_OK)
        return s;
    if (hp->n_rot % 2 || hp->n_rot > hp->head_dim)
        return bad_key(k, ST_FORMAT, "rope.dimension_count", "expected an even number up to the head's %" PRId64
                       ", found %" PRId64, hp->head_dim, hp->n_rot);
    hp->rope_base = 10000;
    if ((s = optional_float(k, "rope.freq_base", 1, 1e15, &hp->rope_base)) != ST_OK)
        return s;
    return read_rope_scaling(k, hp);
}

/* Experts of as many neurons each. Their width defaults to what the dense width leaves for each that a token uses. */
static status read_experts(const struct keys *k, struct hparams *hp)
{
    status s = optional_int(k, "expert_count", 0, MAX_EXPERTS, &hp->n_experts);
    if (s != ST_OK || hp->n_experts == 0)
        return s;
    if (hp->arch != ARCH_QWEN3MOE)
        return bad_key(k, ST_UNSUPPORTED, "expert_count", "expected a model without experts (MoE), found %" PRId64,
                       hp->n_experts);
    s = required_int(k, "expert_used_count", 1, hp->n_experts, &hp->n_experts_used);
    hp->d_expert = hp->d_ff / (hp->n_experts_used ? hp->n_experts_used : 1);
    if (s == ST_OK)
        s = optional_int(k, "expert_feed_forward_length", 1, MAX_D_FF, &hp->d_expert);
    if (s != ST_OK)
        return s;
    if (hp->d_expert < 1 || hp->d_expert * hp->n_experts > MAX_NEURONS)
        return bad_key(k, ST_FORMAT, "expert_feed_forward_length", "expected 1 to %" PRId64 " neurons of each of %"
                       PRId64 " experts, found %" PRId64, MAX_NEURONS / hp->n_experts, hp->n_experts, hp->d_expert);
    hp->d_ff = hp->d_expert * hp->n_experts;
    hp->router = (struct router){.score = ROUTER_SOFTMAX, .normed = true, .scale = 1, .n_groups = 1,
                                 .n_groups_used = 1};
    return ST_OK;
}

static status read_sizes(const struct keys *k, struct hparams *hp)
{
    int64_t n_layers = 0;
    status s = required_int(k, "block_count", 1, MAX_LAYERS, &n_layers);
    if (s == ST_OK)
        s = required_int(k, "embedding_length", 1, MAX_D_MODEL, &hp->d_model);
    if (s != ST_OK)
        return s;
    hp->n_layers = (int)n_layers;
    s = required_int(k, "feed_forward_length", 1, MAX_D_FF, &hp->d_ff);
    if (s == ST_OK)
        s = read_experts(k, hp);
    return s == ST_OK ? required_int(k, "context_length", 1, INT32_MAX, &hp->n_ctx_train) : s;
}

static status read_norm_eps(const struct keys *k, struct hparams *hp)
{
    double eps = 1e-5;
    char key[KEY_SIZE];
    const char *name = hp->norm == NORM_RMS ? "attention.layer_norm_rms_epsilon" : "attention.layer_norm_epsilon";
    /* PowerInfer's converter leaves it out of OPT files; all OPT models have the usual one. */
    if (!gguf_has_key(k->g, full_key(k, name, key)) && hp->arch != ARCH_OPT)
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

/* Learned positions have a row for each; the first of a text is row 2 (Zhang et al., OPT, 2022: fairseq kept two). */
static status read_positions(const struct keys *k, struct hparams *hp)
{
    const struct gguf_tensor *t = gguf_find_tensor(k->g, "position_embd.weight");
    hp->n_rot = 0;
    hp->rope_base = hp->rope_scale = 1;
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

status hparams_read(const struct gguf *g, struct hparams *out)
{
    const struct arch_traits *traits;
    status s = read_arch(g, &traits);
    if (s != ST_OK)
        return s;
    struct keys k = {g, traits->name};
    const bool powerinfer = gguf_is_powerinfer(g);
    struct hparams hp = {.arch = traits->arch, .arch_name = traits->name, .rope_neox = traits->positions == ROPE_NEOX,
                         .norm = traits->norm, .has_gate = traits->has_gate, .parallel = traits->parallel,
                         .activation = powerinfer ? traits->sparse_activation : traits->activation,
                         .activation_known = powerinfer || !traits->other_activation};
    s = read_sizes(&k, &hp);
    if (s == ST_OK)
        s = read_heads(&k, &hp);
    if (s == ST_OK)
        s = traits->positions == LEARNED ? read_positions(&k, &hp) : read_rope(&k, &hp);
    if (s == ST_OK)
        s = read_norm_eps(&k, &hp);
    if (s == ST_OK && powerinfer)
        s = read_threshold(g, &hp);
    if (s == ST_OK && traits->reads_window)
        s = optional_int(&k, "attention.sliding_window", 0, INT32_MAX, &hp.window);
    if (s == ST_OK)
        s = read_vocab(&k, &hp);
    if (s == ST_OK)
        *out = hp;
    return s;
}
