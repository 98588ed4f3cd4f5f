/* Any bytes as a model file: open, touch everything, load as a model.
 *
 *     mkdir corpus && fuzz_gguf -runs=1000000 -max_len=16384 -dict=tests/fuzz/gguf.dict corpus
 *
 * An empty corpus folder is filled with a small model of each family first, which must all load, so that mutations
 * start behind the header's checks. */
#include <dirent.h>
#include <stdio.h>

#include "base/log.h"
#include "model/model.h"
#include "tests/unit/gguf_walk.h"
#include "tests/unit/gguf_writer.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);
int LLVMFuzzerInitialize(int *argc, char ***argv);

static volatile uint64_t sink; /* keeps the reads alive */

static void touch(const struct matrix *m)
{
    if (m->data)
        sink += m->data[0] + m->data[(size_t)m->rows * dtype_row_bytes(m->type, m->cols) - 1];
}

static void touch_all(const struct matrix *const *all, size_t n)
{
    for (size_t i = 0; i < n; i++)
        touch(all[i]);
}
#define TOUCH(...) touch_all((const struct matrix *const[]){__VA_ARGS__}, \
                             sizeof((const struct matrix *const[]){__VA_ARGS__}) / sizeof(struct matrix *))

static void touch_layer(const struct layer_weights *l)
{
    TOUCH(&l->attn_norm, &l->attn_norm_bias, &l->q, &l->k, &l->v, &l->q_bias, &l->k_bias, &l->v_bias, &l->q_norm,
          &l->k_norm, &l->sinks, &l->o, &l->o_bias, &l->q_low, &l->q_low_norm, &l->c_norm, &l->q_in, &l->c_out,
          &l->c_both, &l->ffn_norm, &l->ffn_norm_bias, &l->attn_post_norm, &l->ffn_post_norm, &l->router,
          &l->router_bias, &l->choice_bias, &l->shared_router, &l->expert_down_bias, &l->gate, &l->gate_bias, &l->up,
          &l->up_bias, &l->down, &l->down_bias, &l->down_t, &l->fc1, &l->fc2, &l->qkv, &l->z, &l->beta,
          &l->alpha, &l->beta_alpha, &l->taps, &l->dt_bias, &l->decay, &l->head_norm);
    for (const struct bundle *b = l->bundles; b < l->bundles + l->n_bundles; b++)
        TOUCH(&b->gate, &b->up, &b->gate_bias, &b->up_bias, &b->down, &b->down_t);
}

static void touch_model(const struct model *m)
{
    static double freq[2048]; /* half of the largest head */
    TOUCH(&m->embedding, &m->positions, &m->out_norm, &m->out_norm_bias, &m->output, &m->rope_factors, &m->rope_long,
          &m->rope_short);
    for (int i = 0; i < m->hp.n_layers; i++) {
        touch_layer(&m->layers[i]);
        sink += (uint64_t)model_layer_neurons(m, i) + (uint64_t)model_head_unit(m, i);
    }
    for (int i = 0; i < MODEL_ROPES; i++)
        if (m->hp.rope[i].base != 0)
            model_rope_freqs(m, &m->hp.rope[i], m->hp.n_ctx_train, freq);
    sink += (uint64_t)model_neuron_unit(m) + model_has_biased_gates(m);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct log_catcher caught;
    struct gguf *g;
    struct model *m;
    log_catch(&caught);
    if (gguf_open_bytes(bytes, n, "fuzz", &g) == ST_OK) {
        sink += gguf_walk(g);
        if (model_from_gguf(g, &m) == ST_OK) {
            touch_model(m);
            model_free(m);
        }
    }
    log_catch(NULL);
    return 0;
}

/* The tensors of the layer, each with a letter for its shape (add_tensor), and what keys it has besides the usual ones:
 * numbers, f32 numbers (with an f before), `true` or strings. All end with a blank. */
static const struct seed {
    const char *name, *arch, *tensors, *keys;
} seeds[] = {
#define ATTENTION "attn_norm.weight:v attn_q.weight:m attn_k.weight:m attn_v.weight:m attn_output.weight:m "
#define BIASES "attn_q.bias:v attn_k.bias:v attn_v.bias:v "
#define HEAD_NORMS "attn_q_norm.weight:v attn_k_norm.weight:v "
#define FFN "ffn_norm.weight:v ffn_gate.weight:m ffn_up.weight:m ffn_down.weight:m "
#define EXPERTS "ffn_gate_inp.weight:r ffn_gate_exps.weight:e ffn_up_exps.weight:e ffn_down_exps.weight:e "
#define SHARED "ffn_gate_shexp.weight:m ffn_up_shexp.weight:m ffn_down_shexp.weight:m "
#define POST_NORMS "post_attention_norm.weight:v post_ffw_norm.weight:v "
#define COUNTS "expert_count=2 expert_used_count=1 "
#define WIDTH COUNTS "expert_feed_forward_length=32 "
#define WINDOW "attention.sliding_window=8 "
    {"llama", "llama", ATTENTION BIASES FFN, ""},
    {"llama-powerinfer", "llama", ATTENTION "ffn_norm.weight:v ffn_gate.weight:m ffn_up.weight:m ffn_down_t.weight:m "
     "fc1.weight:m fc2.weight:m ", "powerinfer.sparse_threshold=f0.5 "},
    {"llama-biases", "llama", ATTENTION FFN "ffn_gate.bias:v ffn_up.bias:v ffn_down.bias:v ",
     "rope.scaling.type=linear rope.scaling.factor=f4 "},
    {"llama-experts", "llama", ATTENTION "ffn_norm.weight:v " EXPERTS, COUNTS},
    {"llama-gate-up", "llama", ATTENTION "ffn_norm.weight:v ffn_gate_inp.weight:r ffn_gate_up_exps.weight:f "
     "ffn_down_exps.weight:e ", COUNTS},
    {"llama-each", "llama", ATTENTION "ffn_norm.weight:v ffn_gate_inp.weight:r ffn_gate.0.weight:m ffn_up.0.weight:m "
     "ffn_down.0.weight:m ffn_gate.1.weight:m ffn_up.1.weight:m ffn_down.1.weight:m ", COUNTS},
    {"mistral3", "mistral3", ATTENTION FFN, "rope.scaling.type=yarn rope.scaling.factor=f4 "
     "rope.scaling.original_context_length=8 attention.temperature_scale=f0.1 "},
    {"smollm3", "smollm3", ATTENTION FFN, ""},
    {"granite", "granite", ATTENTION FFN,
     "logit_scale=f8 embedding_scale=f12 residual_scale=f0.2 attention.scale=f0.1 "},
    {"qwen2", "qwen2", ATTENTION BIASES FFN, ""},
    {"qwen3", "qwen3", ATTENTION HEAD_NORMS FFN, ""},
    {"qwen2moe", "qwen2moe", ATTENTION BIASES "ffn_norm.weight:v ffn_gate_inp_shexp.weight:v " EXPERTS SHARED,
     WIDTH "expert_shared_feed_forward_length=32 "},
    {"qwen3moe", "qwen3moe", ATTENTION HEAD_NORMS "ffn_norm.weight:v " EXPERTS, WIDTH},
    {"qwen3next", "qwen3next", "attn_norm.weight:v attn_qkv.weight:q attn_gate.weight:m ssm_ba.weight:r "
     "ssm_conv1d.weight:c ssm_dt.bias:1 ssm_a:1 ssm_norm.weight:v ssm_out.weight:m post_attention_norm.weight:v "
     "ffn_gate_inp_shexp.weight:v " EXPERTS SHARED,
     WIDTH "expert_shared_feed_forward_length=32 ssm.conv_kernel=4 ssm.inner_size=32 ssm.state_size=32 "
     "ssm.time_step_rank=1 ssm.group_count=1 full_attention_interval=4 "},
    {"qwen35", "qwen35", "attn_norm.weight:v attn_qkv.weight:q attn_gate.weight:m ssm_beta.weight:r ssm_alpha.weight:r "
     "ssm_conv1d.weight:c ssm_dt.bias:2 ssm_a:2 ssm_norm.weight:n ssm_out.weight:m post_attention_norm.weight:v "
     "ffn_gate.weight:m ffn_up.weight:m ffn_down.weight:m ", "ssm.conv_kernel=4 ssm.inner_size=32 ssm.state_size=16 "
     "ssm.time_step_rank=2 ssm.group_count=2 "},
    {"gpt-oss", "gpt-oss", ATTENTION BIASES "attn_output.bias:v attn_sinks.weight:1 post_attention_norm.weight:v "
     "ffn_gate_inp.weight:r ffn_gate_inp.bias:2 ffn_gate_exps.weight:x ffn_up_exps.weight:x ffn_down_exps.weight:x "
     "ffn_gate_exps.bias:r ffn_up_exps.bias:r ffn_down_exps.bias:r ",
     WIDTH WINDOW "rope.scaling.type=yarn rope.scaling.factor=f32 rope.scaling.original_context_length=8 "},
    {"glm4moe", "glm4moe", ATTENTION "post_attention_norm.weight:v exp_probs_b.bias:2 " EXPERTS SHARED,
     WIDTH "expert_shared_count=1 expert_gating_func=2 expert_weights_norm=true expert_weights_scale=f2.5 "
     "expert_group_count=1 expert_group_used_count=1 leading_dense_block_count=0 nextn_predict_layers=0 "
     "rope.dimension_count=16 "},
    {"deepseek2", "deepseek2", "attn_norm.weight:v attn_q.weight:m attn_kv_a_mqa.weight:k attn_kv_a_norm.weight:v "
     "attn_k_b.weight:p attn_v_b.weight:o attn_output.weight:m ffn_norm.weight:v " EXPERTS SHARED,
     WIDTH "expert_shared_count=1 attention.kv_lora_rank=32 attention.key_length_mla=32 attention.value_length_mla=32 "
     "rope.dimension_count=16 rope.scaling.type=yarn rope.scaling.factor=f40 rope.scaling.yarn_log_multiplier=f0.1 "},
    {"deepseek2-lite", "deepseek2", "attn_norm.weight:v attn_q_a.weight:m attn_q_a_norm.weight:v attn_q_b.weight:m "
     "attn_kv_a_mqa.weight:k attn_kv_a_norm.weight:v attn_kv_b.weight:k attn_output.weight:m " FFN,
     "attention.q_lora_rank=32 attention.kv_lora_rank=32 attention.key_length=32 attention.value_length=32 "
     "rope.dimension_count=16 "},
    {"smallthinker", "smallthinker", ATTENTION "ffn_norm.weight:v " EXPERTS, WIDTH WINDOW "expert_gating_func=2 "},
    {"gemma2", "gemma2", ATTENTION POST_NORMS FFN, WINDOW "attn_logit_softcapping=f50 final_logit_softcapping=f30 "},
    {"gemma3", "gemma3", ATTENTION HEAD_NORMS POST_NORMS FFN, WINDOW "attention.sliding_window_pattern=2 "},
    {"phi3", "phi3", "attn_norm.weight:v attn_qkv.weight:q attn_output.weight:m ffn_norm.weight:v ffn_up.weight:g "
     "ffn_down.weight:m ", ""},
    {"olmo2", "olmo2", "attn_q.weight:m attn_k.weight:m attn_v.weight:m attn_output.weight:m ffn_gate.weight:m "
     "ffn_up.weight:m ffn_down.weight:m " HEAD_NORMS POST_NORMS, WINDOW},
    {"falcon", "falcon", "attn_qkv.weight:q attn_output.weight:m ffn_up.weight:m ffn_down.weight:m attn_norm.weight:v "
     "attn_norm.bias:v attn_norm_2.weight:v attn_norm_2.bias:v ", "attention.layer_norm_epsilon=f1e-5 "},
    {"opt-powerinfer", "opt", ATTENTION BIASES "attn_norm.bias:v ffn_norm.weight:v ffn_norm.bias:v attn_output.bias:v "
     "ffn_up.weight:m ffn_up.bias:v ffn_down_t.weight:m ffn_down_t.bias:v fc1.weight:m fc2.weight:m ",
     "attention.layer_norm_epsilon=f1e-5 powerinfer.sparse_threshold=f0.5 "},
};

/* "NAME:LETTER" of n bytes. */
static void add_tensor(struct gguf_writer *w, const char *text, int n)
{
    static const struct shape {
        char letter;
        enum dtype type;
        int n_dims;
        int64_t dims[3];
    } shapes[] = {
        {'v', DT_F16, 1, {32}},         {'1', DT_F32, 1, {1}},           {'2', DT_F32, 1, {2}},
        {'m', DT_Q4_0, 2, {32, 32}},    {'r', DT_F32, 2, {32, 2}},       {'q', DT_Q4_0, 2, {32, 96}},
        {'g', DT_Q4_0, 2, {32, 64}},    {'k', DT_Q4_0, 2, {32, 48}},     {'p', DT_F16, 3, {16, 32, 1}},
        {'o', DT_F16, 3, {32, 32, 1}},  {'e', DT_Q4_0, 3, {32, 32, 2}},  {'x', DT_MXFP4, 3, {32, 32, 2}},
        {'f', DT_Q4_0, 3, {32, 64, 2}},  {'n', DT_F32, 1, {16}},         {'c', DT_F32, 2, {4, 96}},
    };
    char name[64];
    size_t i = 0;
    while (shapes[i].letter != text[n - 1])
        i++;
    snprintf(name, sizeof name, "blk.0.%.*s", n - 2, text);
    gguf_add_tensor(w, name, shapes[i].type, shapes[i].n_dims, shapes[i].dims, NULL);
}

/* "NAME=VALUE" of n bytes; PowerInfer's own keys are not the architecture's. */
static void add_key(struct gguf_writer *w, const char *arch, const char *text, int n)
{
    char key[96], value[32];
    const int name = (int)strcspn(text, "=");
    const bool own = strncmp(text, "powerinfer.", 11) == 0;
    snprintf(key, sizeof key, "%s%s%.*s", own ? "" : arch, own ? "" : ".", name, text);
    snprintf(value, sizeof value, "%.*s", n - name - 1, text + name + 1);
    if (*value == 'f')
        gguf_key_f32(w, key, strtof(value + 1, NULL));
    else if (!strcmp(value, "true"))
        gguf_key_uint(w, key, GGUF_BOOL, 1);
    else if (*value >= '0' && *value <= '9')
        gguf_key_u32(w, key, (uint32_t)atoi(value));
    else
        gguf_key_string(w, key, value);
}

static void write_keys(struct gguf_writer *w, const struct seed *s)
{
    static const char *const ints[] = {"embedding_length", "feed_forward_length", "context_length"};
    static const char *const tokens[] = {"a", "b", "ab"};
    char name[64];
    gguf_key_string(w, "general.architecture", s->arch);
    gguf_key_u32(w, "general.alignment", 32);
    for (int i = 0; i < 3; i++) {
        snprintf(name, sizeof name, "%s.%s", s->arch, ints[i]);
        gguf_key_u32(w, name, 32);
    }
    snprintf(name, sizeof name, "%s.block_count", s->arch);
    gguf_key_uint(w, name, GGUF_U64, 1);
    snprintf(name, sizeof name, "%s.attention.head_count", s->arch);
    gguf_key_array(w, name, GGUF_I32, 1);
    gguf_put_uint(w, 1, 4);
    snprintf(name, sizeof name, "%s.attention.layer_norm_rms_epsilon", s->arch);
    gguf_key_f32(w, name, 1e-5f);
    for (const char *at = s->keys, *end; (end = strchr(at, ' ')); at = end + 1)
        add_key(w, s->arch, at, (int)(end - at));
    gguf_key_strings(w, "tokenizer.ggml.tokens", tokens, 3);
    gguf_key_uint(w, "tokenizer.ggml.add_bos_token", GGUF_BOOL, 1);
}

static void require_model(const struct gguf_writer *w, const char *name)
{
    struct gguf *g;
    struct model *m;
    if (gguf_open_bytes(w->bytes, w->n, name, &g) != ST_OK || model_from_gguf(g, &m) != ST_OK)
        abort(); /* a line says why */
    model_free(m);
}

/* A model of one layer, all dimensions 32 but for the vocabulary of 3 and two experts. */
static void write_seed(const char *folder, const struct seed *s)
{
    struct gguf_writer w;
    char path[512];
    gguf_writer_begin(&w, strstr(s->name, "powerinfer") ? "PWRI" : "GGUF", 3);
    write_keys(&w, s);
    gguf_add_tensor(&w, "token_embd.weight", DT_Q8_0, 2, (int64_t[]){32, 3}, NULL);
    gguf_add_tensor(&w, "output_norm.weight", DT_F32, 1, (int64_t[]){32}, NULL);
    if (strstr(s->tensors, "attn_norm.bias"))
        gguf_add_tensor(&w, "output_norm.bias", DT_F32, 1, (int64_t[]){32}, NULL);
    if (!strcmp(s->arch, "opt"))
        gguf_add_tensor(&w, "position_embd.weight", DT_F16, 2, (int64_t[]){32, 34}, NULL);
    for (const char *at = s->tensors, *end; (end = strchr(at, ' ')); at = end + 1)
        add_tensor(&w, at, (int)(end - at));
    gguf_writer_end(&w);
    require_model(&w, s->name);
    snprintf(path, sizeof path, "%s/%s", folder, s->name);
    if (gguf_writer_save(&w, path) != 0)
        perror(path);
    gguf_writer_free(&w);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    for (int i = 1; i < *argc; i++) {
        DIR *d = (*argv)[i][0] != '-' ? opendir((*argv)[i]) : NULL;
        if (!d)
            continue;
        int entries = 0;
        while (readdir(d))
            entries++;
        closedir(d);
        for (size_t j = 0; entries <= 2 && j < sizeof seeds / sizeof *seeds; j++) /* . and .. */
            write_seed((*argv)[i], &seeds[j]);
        return 0;
    }
    return 0;
}
