/* Hyper-parameters and weights from GGUF files built in memory, each wrong in one way, and from the vectors' files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <dirent.h>
#include <math.h>

#include "base/log.h"
#include "model/model.h"
#include "tests/unit/alloc_fail.h"
#include "tests/unit/gguf_writer.h"

static struct log_catcher caught;

#define assert_logged(text)                                                                       \
    do {                                                                                          \
        if (!strstr(caught.first_error, text))                                                    \
            fail_msg("expected a line with \"%s\", found \"%s\"", text, caught.first_error);      \
    } while (0)

static int catch_errors(void **state)
{
    (void)state;
    log_catch(&caught);
    return 0;
}

enum { LAYERS = 2, D = 64, FF = 96, HEADS = 4, KV = 2, HEAD = 16, VOCAB = 8, POSITIONS = 130 };

/* A tiny model and what is to be wrong with it. */
struct recipe {
    const char *arch, *magic;
    const char *without;          /* this key (after "ARCH.") or tensor is left out */
    const char *reshape;          /* this tensor gets `dims` */
    int64_t dims[3];              /* trailing ones may be 0: not there */
    const char *retype;           /* this tensor gets `type` */
    uint32_t type;
    const char *u32_key;          /* this key (after "ARCH.") is added, or replaces the usual one */
    uint32_t u32;
    const char *f32_key;
    float f32;
    const char *string_key, *string;
    float threshold;              /* powerinfer.sparse_threshold, if not 0 */
    uint32_t kv_of_layers[LAYERS]; /* attention.head_count_kv as an array, if [0] is not 0 */
    const char *extra;            /* a tensor [D] F32 is added */
    int64_t head_dim;             /* 0: HEAD, and no key says so */
    int64_t extra_tokens;         /* tokens in tokenizer.ggml.tokens, 0: no such key */
    uint32_t gate_type, down_type; /* 0: F32 */
    const float *rope_factors;    /* [n_rot / 2] */
    bool untied, q_biases, qk_norms, transposed_down, predictors, two_norms;
};

static bool is(const char *a, const char *b) { return a && !strcmp(a, b); }

static void put_u32(struct gguf_writer *w, const struct recipe *r, const char *name, uint32_t v)
{
    char key[96];
    snprintf(key, sizeof key, "%s.%s", r->arch, name);
    if (!is(r->without, name) && !is(r->u32_key, name) && !is(r->f32_key, name) && !is(r->string_key, name))
        gguf_key_u32(w, key, v);
}

static void put_f32(struct gguf_writer *w, const struct recipe *r, const char *name, float v)
{
    char key[96];
    snprintf(key, sizeof key, "%s.%s", r->arch, name);
    if (!is(r->without, name) && !is(r->u32_key, name) && !is(r->f32_key, name) && !is(r->string_key, name))
        gguf_key_f32(w, key, v);
}

static void put_tensor(struct gguf_writer *w, const struct recipe *r, const char *name, uint32_t type, int64_t cols,
                       int64_t rows, const void *data)
{
    int64_t dims[3] = {cols, rows, 0};
    if (is(r->without, name))
        return;
    if (is(r->reshape, name))
        memcpy(dims, r->dims, sizeof dims);
    if (is(r->retype, name))
        type = r->type;
    gguf_add_tensor(w, name, type, dims[2] ? 3 : dims[1] ? 2 : 1, dims, data);
}

static void put_layer(struct gguf_writer *w, const struct recipe *r, int layer)
{
    int64_t head = r->head_dim ? r->head_dim : HEAD;
    const bool falcon = is(r->arch, "falcon"), opt = is(r->arch, "opt"), layer_norm = falcon || opt;
    const struct {
        const char *name;
        uint32_t type;
        int64_t cols, rows; /* rows 0: one dimension */
        bool skip;
    } tensors[] = {
        {"attn_norm.weight", DT_F32, D, 0, false},
        {"attn_norm.bias", DT_F32, D, 0, !layer_norm},
        {"attn_norm_2.weight", DT_F32, D, 0, !r->two_norms},
        {"attn_norm_2.bias", DT_F32, D, 0, !r->two_norms},
        {"attn_qkv.weight", DT_F16, D, (HEADS + 2 * KV) * head, !falcon},
        {"attn_q.weight", DT_F32, D, HEADS * head, falcon},
        {"attn_k.weight", DT_F16, D, KV * head, falcon},
        {"attn_v.weight", DT_BF16, D, KV * head, falcon},
        {"attn_q.bias", DT_F32, HEADS * head, 0, !r->q_biases && !opt},
        {"attn_k.bias", DT_F32, KV * head, 0, !r->q_biases && !opt},
        {"attn_v.bias", DT_F32, KV * head, 0, !r->q_biases && !opt},
        {"attn_q_norm.weight", DT_F32, head, 0, !r->qk_norms},
        {"attn_k_norm.weight", DT_F32, head, 0, !r->qk_norms},
        {"attn_output.weight", DT_F32, HEADS * head, D, false},
        {"attn_output.bias", DT_F32, D, 0, !opt},
        {"ffn_norm.weight", DT_F32, D, 0, falcon},
        {"ffn_norm.bias", DT_F32, D, 0, !opt},
        {"ffn_gate.weight", r->gate_type, D, FF, layer_norm},
        {"ffn_up.weight", r->gate_type, D, FF, false},
        {"ffn_up.bias", DT_F32, FF, 0, !opt},
        {"ffn_down.weight", r->down_type, FF, D, r->transposed_down},
        {"ffn_down.bias", DT_F32, D, 0, !opt || r->transposed_down},
        {"ffn_down_t.weight", r->down_type, D, FF, !r->transposed_down},
        {"ffn_down_t.bias", DT_F32, D, 0, !opt || !r->transposed_down},
        {"fc1.weight", DT_F32, D, 5, !r->predictors},
        {"fc2.weight", DT_F32, 5, FF, !r->predictors},
    };
    char name[64];
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++) {
        snprintf(name, sizeof name, "blk.%d.%s", layer, tensors[i].name);
        if (!tensors[i].skip)
            put_tensor(w, r, name, tensors[i].type, tensors[i].cols, tensors[i].rows, NULL);
    }
}

static void write_model(struct gguf_writer *w, const struct recipe *r)
{
    char key[96];
    gguf_writer_begin(w, r->magic ? r->magic : "GGUF", 3);
    if (!is(r->without, "general.architecture"))
        gguf_key_string(w, "general.architecture", r->arch);
    put_u32(w, r, "block_count", LAYERS);
    put_u32(w, r, "embedding_length", D);
    put_u32(w, r, "feed_forward_length", FF);
    put_u32(w, r, "context_length", 512);
    put_u32(w, r, "attention.head_count", HEADS);
    put_u32(w, r, "attention.head_count_kv", KV);
    if (is(r->arch, "falcon"))
        put_f32(w, r, "attention.layer_norm_epsilon", 1e-5f);
    else if (!is(r->arch, "opt"))
        put_f32(w, r, "attention.layer_norm_rms_epsilon", 1e-5f);
    if (r->head_dim)
        put_u32(w, r, "attention.key_length", (uint32_t)r->head_dim);
    snprintf(key, sizeof key, "%s.%s", r->arch, r->u32_key ? r->u32_key : "");
    if (r->u32_key)
        gguf_key_u32(w, key, r->u32);
    snprintf(key, sizeof key, "%s.%s", r->arch, r->f32_key ? r->f32_key : "");
    if (r->f32_key)
        gguf_key_f32(w, key, r->f32);
    snprintf(key, sizeof key, "%s.%s", r->arch, r->string_key ? r->string_key : "");
    if (r->string_key)
        gguf_key_string(w, key, r->string);
    if (r->threshold != 0)
        gguf_key_f32(w, "powerinfer.sparse_threshold", r->threshold);
    if (r->kv_of_layers[0]) {
        gguf_key_array(w, "llama.attention.head_count_kv", GGUF_U32, LAYERS);
        for (int i = 0; i < LAYERS; i++)
            gguf_put_uint(w, r->kv_of_layers[i], 4);
    }
    if (r->extra_tokens) {
        gguf_key_array(w, "tokenizer.ggml.tokens", GGUF_STRING, (uint64_t)r->extra_tokens);
        for (int64_t i = 0; i < r->extra_tokens; i++)
            gguf_put_string(w, "x");
    }
    put_tensor(w, r, "token_embd.weight", DT_Q8_0, D, VOCAB, NULL);
    put_tensor(w, r, "output_norm.weight", DT_F32, D, 0, NULL);
    if (is(r->arch, "falcon") || is(r->arch, "opt"))
        put_tensor(w, r, "output_norm.bias", DT_F32, D, 0, NULL);
    if (is(r->arch, "opt"))
        put_tensor(w, r, "position_embd.weight", DT_F16, D, POSITIONS, NULL);
    if (r->untied)
        put_tensor(w, r, "output.weight", DT_Q4_0, D, VOCAB, NULL);
    if (r->rope_factors)
        put_tensor(w, r, "rope_freqs.weight", DT_F32, HEAD / 2, 0, r->rope_factors);
    for (int i = 0; i < LAYERS; i++)
        put_layer(w, r, i);
    if (r->extra)
        put_tensor(w, r, r->extra, DT_F32, D, 0, NULL);
    gguf_writer_end(w);
}

/* Loads what the recipe says; `w` holds the bytes until free_model. */
static status load(const struct recipe *r, struct gguf_writer *w, struct model **m)
{
    struct gguf *g;
    write_model(w, r);
    log_catch(&caught);
    assert_int_equal(gguf_open_bytes(w->bytes, w->n, "tiny.gguf", &g), ST_OK);
    return model_from_gguf(g, m);
}

static void free_model(struct model *m, struct gguf_writer *w)
{
    model_free(m);
    gguf_writer_free(w);
}

/* The model is refused with the status and a line that holds the text. */
#define assert_refused(expected, text, ...)                                  \
    do {                                                                     \
        struct recipe r_ = {__VA_ARGS__};                                    \
        if (!r_.arch)                                                        \
            r_.arch = "llama";                                               \
        struct gguf_writer w_;                                               \
        struct model *m_ = NULL;                                             \
        status s_ = load(&r_, &w_, &m_);                                     \
        gguf_writer_free(&w_);                                               \
        assert_logged(text);                                                 \
        assert_int_equal(s_, expected);                                      \
        assert_null(m_);                                                     \
        assert_logged("tiny.gguf: ");                                        \
    } while (0)

static void assert_matrix(const struct matrix *m, const char *name, enum dtype type, int64_t rows, int64_t cols)
{
    assert_non_null(m->data);
    assert_string_equal(m->name, name);
    assert_int_equal(m->type, type);
    assert_int_equal(m->rows, rows);
    assert_int_equal(m->cols, cols);
}

static void loads_llama(void **state)
{
    (void)state;
    struct gguf_writer w;
    struct model *m;
    assert_int_equal(load(&(struct recipe){.arch = "llama"}, &w, &m), ST_OK);
    const struct hparams *hp = &m->hp;
    assert_true(!strcmp(hp->arch_name, "llama"));
    assert_true(hp->n_layers == LAYERS && hp->d_model == D && hp->d_ff == FF && hp->n_vocab == VOCAB);
    assert_true(hp->n_heads == HEADS && hp->n_kv_heads == KV && hp->head_dim == HEAD && hp->n_rot == HEAD);
    assert_true(!hp->rope_neox && hp->rope[0].base == 10000 && hp->rope[0].scale == 1);
    assert_true(hp->norm_eps == 1e-5f && hp->window == 0 && hp->n_ctx_train == 512);
    assert_matrix(&m->embedding, "token_embd.weight", DT_Q8_0, VOCAB, D);
    assert_ptr_equal(m->output.data, m->embedding.data);
    assert_matrix(&m->out_norm, "output_norm.weight", DT_F32, 1, D);
    assert_null(m->rope_factors.data);
    const struct layer_weights *l = &m->layers[1];
    assert_matrix(&l->attn_norm, "blk.1.attn_norm.weight", DT_F32, 1, D);
    assert_matrix(&l->q, "blk.1.attn_q.weight", DT_F32, HEADS * HEAD, D);
    assert_matrix(&l->k, "blk.1.attn_k.weight", DT_F16, KV * HEAD, D);
    assert_matrix(&l->v, "blk.1.attn_v.weight", DT_BF16, KV * HEAD, D);
    assert_matrix(&l->o, "blk.1.attn_output.weight", DT_F32, D, HEADS * HEAD);
    assert_matrix(&l->ffn_norm, "blk.1.ffn_norm.weight", DT_F32, 1, D);
    assert_matrix(&l->gate, "blk.1.ffn_gate.weight", DT_F32, FF, D);
    assert_matrix(&l->up, "blk.1.ffn_up.weight", DT_F32, FF, D);
    assert_matrix(&l->down, "blk.1.ffn_down.weight", DT_F32, D, FF);
    assert_true(!l->down_t.data && !l->q_bias.data && !l->o_bias.data && !l->q_norm.data);
    assert_ptr_equal(l->up.data, gguf_find_tensor(m->file, "blk.1.ffn_up.weight")->data);
    assert_int_equal(model_neuron_unit(m), SUM_SEGMENT);
    assert_true(hp->activation == ACT_SILU && hp->activation_known && hp->has_gate && hp->norm == NORM_RMS);
    free_model(m, &w);
    assert_int_equal(load(&(struct recipe){.arch = "llama", .untied = true, .q_biases = true}, &w, &m), ST_OK);
    assert_matrix(&m->output, "output.weight", DT_Q4_0, VOCAB, D);
    assert_matrix(&m->layers[0].q_bias, "blk.0.attn_q.bias", DT_F32, 1, HEADS * HEAD);
    free_model(m, &w);
}

static void loads_qwen2(void **state)
{
    (void)state;
    struct gguf_writer w;
    struct model *m;
    assert_int_equal(load(&(struct recipe){.arch = "qwen2", .q_biases = true, .u32_key = "attention.sliding_window",
                                           .u32 = 64}, &w, &m), ST_OK);
    assert_true(m->hp.rope_neox);
    assert_int_equal(m->hp.window, 0); /* these layers do not use it */
    assert_matrix(&m->layers[1].q_bias, "blk.1.attn_q.bias", DT_F32, 1, HEADS * HEAD);
    assert_matrix(&m->layers[1].k_bias, "blk.1.attn_k.bias", DT_F32, 1, KV * HEAD);
    assert_matrix(&m->layers[1].v_bias, "blk.1.attn_v.bias", DT_F32, 1, KV * HEAD);
    free_model(m, &w);
    assert_refused(ST_FORMAT, "tensor blk.0.attn_q.bias: expected [64], found no such tensor", .arch = "qwen2");
}

static void loads_qwen3(void **state)
{
    (void)state;
    struct gguf_writer w;
    struct model *m;
    assert_int_equal(load(&(struct recipe){.arch = "qwen3", .qk_norms = true, .head_dim = 40}, &w, &m), ST_OK);
    assert_true(m->hp.rope_neox && m->hp.head_dim == 40 && m->hp.n_rot == 40);
    assert_matrix(&m->layers[1].q, "blk.1.attn_q.weight", DT_F32, HEADS * 40, D);
    assert_matrix(&m->layers[1].o, "blk.1.attn_output.weight", DT_F32, D, HEADS * 40);
    assert_matrix(&m->layers[1].q_norm, "blk.1.attn_q_norm.weight", DT_F32, 1, 40);
    assert_matrix(&m->layers[1].k_norm, "blk.1.attn_k_norm.weight", DT_F32, 1, 40);
    free_model(m, &w);
    assert_refused(ST_FORMAT, "tensor blk.0.attn_q_norm.weight: expected [16], found no such tensor", .arch = "qwen3");
}

static void loads_llama3_factors(void **state)
{
    (void)state;
    static const float good[HEAD / 2] = {1, 1, 1, 1, 2, 4, 8, 8};
    static const float zero[HEAD / 2] = {1, 1, 1, 1, 0, 4, 8, 8};
    static const float nan[HEAD / 2] = {1, 1, 1, 1, NAN, 4, 8, 8};
    struct gguf_writer w;
    struct model *m;
    assert_int_equal(load(&(struct recipe){.arch = "llama", .rope_factors = good}, &w, &m), ST_OK);
    assert_matrix(&m->rope_factors, "rope_freqs.weight", DT_F32, 1, HEAD / 2);
    assert_memory_equal(m->rope_factors.data, good, sizeof good);
    free_model(m, &w);
    assert_refused(ST_FORMAT, "tensor rope_freqs.weight: expected factors", .rope_factors = zero);
    assert_refused(ST_FORMAT, "tensor rope_freqs.weight: expected factors", .rope_factors = nan);
    assert_refused(ST_FORMAT, "tensor rope_freqs.weight: expected [8], found [7]", .rope_factors = good,
                   .reshape = "rope_freqs.weight", .dims = {7, 0});
    assert_refused(ST_UNSUPPORTED, "tensor rope_freqs.weight: expected F32, found type F16", .rope_factors = good,
                   .retype = "rope_freqs.weight", .type = DT_F16);
}

static void loads_powerinfer(void **state)
{
    (void)state;
    struct gguf_writer w;
    struct model *m;
    struct recipe r = {.arch = "llama", .magic = "PWRI", .transposed_down = true, .predictors = true,
                       .gate_type = DT_Q4_0, .down_type = DT_Q4_0};
    assert_int_equal(load(&r, &w, &m), ST_OK);
    assert_matrix(&m->layers[0].down_t, "blk.0.ffn_down_t.weight", DT_Q4_0, FF, D);
    assert_null(m->layers[0].down.data);
    assert_matrix(&m->layers[1].fc1, "blk.1.fc1.weight", DT_F32, 5, D);
    assert_matrix(&m->layers[1].fc2, "blk.1.fc2.weight", DT_F32, FF, 5);
    assert_true(m->hp.activation == ACT_RELU && m->hp.sparse_threshold == 0);
    assert_int_equal(model_neuron_unit(m), SUM_SEGMENT);
    free_model(m, &w);
    r.threshold = -0.25f;
    assert_int_equal(load(&r, &w, &m), ST_OK);
    assert_true(m->hp.sparse_threshold == -0.25f);
    free_model(m, &w);
    assert_refused(ST_FORMAT, "key powerinfer.sparse_threshold: expected -1e+30 to 1e+30, found nan", .magic = "PWRI",
                   .threshold = NAN);
    assert_refused(ST_FORMAT, "tensor blk.0.fc2.weight: expected [5, 96], found [6, 96]", .magic = "PWRI",
                   .predictors = true, .reshape = "blk.0.fc2.weight", .dims = {6, FF});
    assert_refused(ST_FORMAT, "tensor blk.0.fc1.weight: expected [64, 5], found [66, 5]", .magic = "PWRI",
                   .predictors = true, .reshape = "blk.0.fc1.weight", .dims = {66, 5});
    assert_refused(ST_FORMAT, "tensor blk.0.fc2.weight: expected [5, 96], found no such tensor", .magic = "PWRI",
                   .predictors = true, .without = "blk.0.fc2.weight");
    assert_refused(ST_FORMAT, "tensor blk.1.fc1.weight: expected [64, 1], found no such tensor", .magic = "PWRI",
                   .predictors = true, .without = "blk.1.fc1.weight");
    assert_refused(ST_FORMAT, "tensor blk.0.ffn_down.weight: expected [96, 64], found no such tensor",
                   .transposed_down = true);
    assert_refused(ST_UNSUPPORTED, "tensor blk.0.fc1.weight: expected only tensors of a llama model of 2 layers",
                   .predictors = true);
}

static void loads_bamboo(void **state)
{
    (void)state;
    struct gguf_writer w;
    struct model *m;
    assert_int_equal(load(&(struct recipe){.arch = "bamboo"}, &w, &m), ST_OK);
    assert_true(m->hp.activation == ACT_DRELU && m->hp.activation_known);
    assert_true(m->hp.norm == NORM_RMS && m->hp.has_gate && !m->hp.parallel && !m->hp.rope_neox);
    free_model(m, &w);
}

static void loads_falcon(void **state)
{
    (void)state;
    struct gguf_writer w;
    struct model *m;
    assert_int_equal(load(&(struct recipe){.arch = "falcon"}, &w, &m), ST_OK);
    const struct hparams *hp = &m->hp;
    const struct layer_weights *l = &m->layers[1];
    const size_t row = dtype_row_bytes(DT_F16, D);
    assert_true(hp->norm == NORM_LAYER && hp->parallel && !hp->has_gate && hp->rope_neox);
    assert_false(hp->activation_known); /* GELU */
    assert_matrix(&l->q, "blk.1.attn_qkv.weight", DT_F16, HEADS * HEAD, D);
    assert_matrix(&l->k, "blk.1.attn_qkv.weight", DT_F16, KV * HEAD, D);
    assert_matrix(&l->v, "blk.1.attn_qkv.weight", DT_F16, KV * HEAD, D);
    assert_ptr_equal(l->q.data, gguf_find_tensor(m->file, "blk.1.attn_qkv.weight")->data);
    assert_ptr_equal(l->k.data, l->q.data + HEADS * HEAD * row);
    assert_ptr_equal(l->v.data, l->k.data + KV * HEAD * row);
    assert_matrix(&l->attn_norm, "blk.1.attn_norm.weight", DT_F32, 1, D);
    assert_matrix(&l->ffn_norm_bias, "blk.1.attn_norm.bias", DT_F32, 1, D);
    assert_ptr_equal(l->ffn_norm.data, l->attn_norm.data);
    assert_matrix(&m->out_norm_bias, "output_norm.bias", DT_F32, 1, D);
    assert_true(!l->gate.data && !l->up_bias.data && !l->down_bias.data && !l->o_bias.data && !m->positions.data);
    free_model(m, &w);

    struct recipe two = {.arch = "falcon", .magic = "PWRI", .two_norms = true, .transposed_down = true};
    assert_int_equal(load(&two, &w, &m), ST_OK);
    assert_matrix(&m->layers[0].attn_norm, "blk.0.attn_norm_2.weight", DT_F32, 1, D);
    assert_matrix(&m->layers[0].attn_norm_bias, "blk.0.attn_norm_2.bias", DT_F32, 1, D);
    assert_matrix(&m->layers[0].ffn_norm, "blk.0.attn_norm.weight", DT_F32, 1, D);
    assert_true(m->hp.activation == ACT_RELU && m->hp.activation_known);
    free_model(m, &w);
    assert_refused(ST_FORMAT, "tensor blk.0.attn_qkv.weight: expected [64, 128], found [64, 127]", .arch = "falcon",
                   .reshape = "blk.0.attn_qkv.weight", .dims = {D, 127});
    assert_refused(ST_FORMAT, "tensor blk.0.attn_norm_2.bias: expected [64], found no such tensor", .arch = "falcon",
                   .two_norms = true, .without = "blk.0.attn_norm_2.bias");
    assert_refused(ST_UNSUPPORTED, "tensor blk.0.attn_qkv.bias", .arch = "falcon", .extra = "blk.0.attn_qkv.bias");
}

static void loads_opt(void **state)
{
    (void)state;
    struct gguf_writer w;
    struct model *m;
    assert_int_equal(load(&(struct recipe){.arch = "opt"}, &w, &m), ST_OK);
    const struct hparams *hp = &m->hp;
    const struct layer_weights *l = &m->layers[1];
    assert_true(hp->norm == NORM_LAYER && !hp->parallel && !hp->has_gate && hp->n_rot == 0);
    assert_true(hp->activation == ACT_RELU && hp->activation_known && hp->norm_eps == 1e-5f);
    assert_true(hp->position_offset == 2 && hp->n_ctx_train == POSITIONS - 2);
    assert_matrix(&m->positions, "position_embd.weight", DT_F16, POSITIONS, D);
    assert_matrix(&m->out_norm_bias, "output_norm.bias", DT_F32, 1, D);
    assert_matrix(&l->attn_norm_bias, "blk.1.attn_norm.bias", DT_F32, 1, D);
    assert_matrix(&l->ffn_norm_bias, "blk.1.ffn_norm.bias", DT_F32, 1, D);
    assert_matrix(&l->q_bias, "blk.1.attn_q.bias", DT_F32, 1, HEADS * HEAD);
    assert_matrix(&l->o_bias, "blk.1.attn_output.bias", DT_F32, 1, D);
    assert_matrix(&l->up_bias, "blk.1.ffn_up.bias", DT_F32, 1, FF);
    assert_matrix(&l->down_bias, "blk.1.ffn_down.bias", DT_F32, 1, D);
    assert_null(l->gate.data);
    free_model(m, &w);

    struct recipe sparse = {.arch = "opt", .magic = "PWRI", .transposed_down = true, .predictors = true};
    assert_int_equal(load(&sparse, &w, &m), ST_OK);
    assert_matrix(&m->layers[0].down_bias, "blk.0.ffn_down_t.bias", DT_F32, 1, D);
    free_model(m, &w);
    assert_int_equal(load(&(struct recipe){.arch = "opt", .f32_key = "attention.layer_norm_epsilon", .f32 = 1e-6f}, &w,
                          &m), ST_OK);
    assert_true(m->hp.norm_eps == 1e-6f);
    free_model(m, &w);
    assert_int_equal(load(&(struct recipe){.arch = "opt", .u32_key = "context_length", .u32 = 100}, &w, &m), ST_OK);
    assert_int_equal(m->hp.n_ctx_train, 100);
    free_model(m, &w);
    assert_refused(ST_FORMAT, "tensor position_embd.weight: expected [64, positions], found no such tensor",
                   .arch = "opt", .without = "position_embd.weight");
    assert_refused(ST_FORMAT, "expected 3 positions or more, found 2", .arch = "opt", .reshape = "position_embd.weight",
                   .dims = {D, 2});
    assert_refused(ST_FORMAT, "tensor position_embd.weight: expected [64, 130], found [60, 130]", .arch = "opt",
                   .reshape = "position_embd.weight", .dims = {60, POSITIONS});
    assert_refused(ST_UNSUPPORTED, "tensor blk.0.attn_norm_2.weight", .arch = "opt",
                   .extra = "blk.0.attn_norm_2.weight");
    assert_refused(ST_UNSUPPORTED, "tensor position_embd.weight: expected only tensors of a llama model",
                   .extra = "position_embd.weight");
}

static void neuron_unit_is_the_largest_block(void **state)
{
    (void)state;
    struct gguf_writer w;
    struct model *m;
    struct recipe r = {.arch = "llama", .down_type = DT_Q5_1};
    assert_int_equal(load(&r, &w, &m), ST_OK);
    assert_int_equal(model_neuron_unit(m), SUM_SEGMENT);
    free_model(m, &w);
    /* One layer of K type is enough. */
    struct bundle bundles[2] = {{.down = {.type = DT_Q8_0, .data = (const uint8_t *)""}},
                                {.down = {.type = DT_Q6_K, .data = (const uint8_t *)""}}};
    struct layer_weights layers[2] = {{.bundles = &bundles[0], .n_bundles = 1},
                                      {.bundles = &bundles[1], .n_bundles = 1}};
    struct model mixed = {.hp.n_layers = 2, .layers = layers};
    assert_int_equal(model_neuron_unit(&mixed), 256);
}

/* What keeps heads together: whole blocks of the output projection's columns. */
static void head_unit_makes_whole_blocks(void **state)
{
    (void)state;
    static const struct {
        int64_t heads, kv_heads, head_dim;
        enum dtype first, second;
        int64_t unit;
    } some[] = {
        {9, 3, 64, DT_Q4_0, DT_Q4_1, 1},  {32, 32, 128, DT_Q4_0, DT_Q4_K, 2}, {32, 8, 128, DT_Q6_K, DT_Q4_K, 1},
        {32, 32, 80, DT_Q8_0, DT_Q8_0, 2}, {32, 32, 80, DT_F16, DT_F32, 1},    {8, 4, 16, DT_F32, DT_Q5_0, 1},
        {16, 8, 16, DT_Q2_K, DT_F32, 8},   {71, 1, 64, DT_Q4_0, DT_Q4_0, 1},
    };
    for (size_t i = 0; i < sizeof some / sizeof *some; i++) {
        struct layer_weights layers[2] = {{.o = {.type = some[i].first}}, {.o = {.type = some[i].second}}};
        struct model m = {.hp = {.n_layers = 2, .n_heads = some[i].heads, .n_kv_heads = some[i].kv_heads,
                                 .value_dim = some[i].head_dim}, .layers = layers};
        assert_int_equal(model_head_unit(&m, 0), some[i].unit);
    }
}

/* Of delta nets, whose value heads follow their key head or take key heads in turn. Where a turn of all key heads is no
 * whole blocks, none of them goes without the others. */
static void key_heads_are_cut_where_turns_are_whole(void **state)
{
    (void)state;
    static const struct {
        int64_t key_heads, value_heads, size;
        bool in_turn;
        enum dtype type;
        int64_t unit;
    } some[] = {
        {16, 32, 128, false, DT_Q4_K, 1}, {16, 48, 128, true, DT_Q4_K, 2}, {16, 32, 128, true, DT_Q8_0, 1},
        {3, 6, 16, false, DT_Q8_0, 1},    {3, 6, 16, true, DT_Q8_0, 3},    {5, 10, 16, true, DT_Q8_0, 5},
        {6, 12, 16, true, DT_Q8_0, 2},    {1, 2, 16, true, DT_Q8_0, 1},    {5, 10, 16, true, DT_F16, 1},
    };
    for (size_t i = 0; i < sizeof some / sizeof *some; i++) {
        struct layer_weights layers[2] = {{.o = {.type = some[i].type}}, {.o = {.type = DT_F32}}};
        struct model m = {.hp = {.n_layers = 2, .n_heads = 4, .n_kv_heads = 4, .value_dim = 64,
                                 .layer[0].kind = LAYER_DELTA,
                                 .delta = {.key_heads = some[i].key_heads, .value_heads = some[i].value_heads,
                                           .size = some[i].size, .in_turn = some[i].in_turn}}, .layers = layers};
        assert_int_equal(model_head_unit(&m, 0), some[i].unit);
        assert_int_equal(model_head_unit(&m, 1), 1);
    }
}

static void load_with_rope(const struct recipe *r, double scale, double base, int64_t n_rot, int64_t window)
{
    struct gguf_writer w;
    struct model *m;
    assert_int_equal(load(r, &w, &m), ST_OK);
    assert_float_equal(m->hp.rope[0].scale, scale, 1e-12);
    assert_float_equal(m->hp.rope[0].base, base, 1e-6);
    assert_int_equal(m->hp.n_rot, n_rot);
    assert_int_equal(m->hp.window, window);
    free_model(m, &w);
}

static void reads_rope_and_window(void **state)
{
    (void)state;
    const char *a = "llama";
    load_with_rope(&(struct recipe){.arch = a, .f32_key = "rope.scaling.factor", .f32 = 4}, 0.25, 10000, 16, 0);
    load_with_rope(&(struct recipe){.arch = a, .f32_key = "rope.scale_linear", .f32 = 2}, 0.5, 10000, 16, 0);
    load_with_rope(&(struct recipe){.arch = a, .f32_key = "rope.scaling.factor", .f32 = 0}, 1, 10000, 16, 0);
    load_with_rope(&(struct recipe){.arch = a, .f32_key = "rope.scaling.factor", .f32 = 4,
                                    .string_key = "rope.scaling.type", .string = "linear"}, 0.25, 10000, 16, 0);
    load_with_rope(&(struct recipe){.arch = a, .f32_key = "rope.scaling.factor", .f32 = 4,
                                    .string_key = "rope.scaling.type", .string = "none"}, 1, 10000, 16, 0);
    load_with_rope(&(struct recipe){.arch = a, .f32_key = "rope.freq_base", .f32 = 500000}, 1, 500000, 16, 0);
    load_with_rope(&(struct recipe){.arch = a, .u32_key = "rope.dimension_count", .u32 = 8}, 1, 10000, 8, 0);
    load_with_rope(&(struct recipe){.arch = a, .u32_key = "attention.sliding_window", .u32 = 4096}, 1, 10000, 16, 4096);
    assert_refused(ST_UNSUPPORTED, "key llama.rope.scaling.type: expected none, linear, yarn or longrope, found 'su'",
                   .string_key = "rope.scaling.type", .string = "su");
    assert_refused(ST_FORMAT, "key llama.rope.scaling.attn_factor: expected 1e-06 to 1e+06, found 0",
                   .f32_key = "rope.scaling.attn_factor", .f32 = 0);
    assert_refused(ST_FORMAT, "key llama.rope.scaling.factor", .f32_key = "rope.scaling.factor", .f32 = -1);
    assert_refused(ST_FORMAT, "key llama.rope.scaling.factor", .f32_key = "rope.scaling.factor", .f32 = NAN);
    assert_refused(ST_FORMAT, "key llama.rope.scaling.factor", .f32_key = "rope.scaling.factor", .f32 = 1e-30f);
    assert_refused(ST_FORMAT, "key llama.rope.freq_base", .f32_key = "rope.freq_base", .f32 = 0);
    assert_refused(ST_FORMAT, "key llama.rope.freq_base", .f32_key = "rope.freq_base", .f32 = INFINITY);
    assert_refused(ST_FORMAT, "key llama.rope.dimension_count: expected an even number up to the head's 16, found 7",
                   .u32_key = "rope.dimension_count", .u32 = 7);
    assert_refused(ST_FORMAT, "found 18", .u32_key = "rope.dimension_count", .u32 = 18);
}

static void refuses_unknown_architectures(void **state)
{
    (void)state;
    assert_refused(ST_UNSUPPORTED, "architecture: expected one of llama, mistral3, smollm3, granite, qwen2, qwen3, "
                   "qwen2moe, qwen3moe, qwen3next, qwen35, qwen35moe, gpt-oss, glm4moe, deepseek2, smallthinker, "
                   "gemma2, gemma3, phi3, olmo2, bamboo, falcon, opt, found 'gemma4'", .arch = "gemma4");
    assert_refused(ST_UNSUPPORTED, "found 'llam'", .arch = "llam");
    assert_refused(ST_UNSUPPORTED, "found 'llama4'", .arch = "llama4");
    assert_refused(ST_FORMAT, "key general.architecture: expected a string, found no such key",
                   .without = "general.architecture");
    assert_refused(ST_UNSUPPORTED, "key qwen2.expert_count: expected a model without experts (MoE), found 8",
                   .arch = "qwen2", .u32_key = "expert_count", .u32 = 8);
}

static void refuses_missing_keys(void **state)
{
    (void)state;
    static const char *const required[] = {"block_count", "embedding_length", "feed_forward_length", "context_length",
                                           "attention.head_count", "attention.layer_norm_rms_epsilon"};
    for (size_t i = 0; i < sizeof required / sizeof *required; i++) {
        assert_refused(ST_FORMAT, "found no such key", .without = required[i]);
        assert_logged(required[i]);
        assert_refused(ST_FORMAT, required[i], .string_key = required[i], .string = "7");
        assert_logged("found another value");
    }
}

static void refuses_impossible_numbers(void **state)
{
    (void)state;
    static const struct {
        const char *key;
        uint32_t value;
        const char *line;
    } cases[] = {
        {"block_count", 0, "key llama.block_count: expected 1 to 1024, found 0"},
        {"block_count", 1025, "key llama.block_count: expected 1 to 1024, found 1025"},
        {"block_count", 3, "tensor blk.2.attn_norm.weight: expected [64], found no such tensor"},
        {"embedding_length", 0, "found 0"},
        {"embedding_length", UINT32_MAX, "found 4294967295"},
        {"embedding_length", 68,
         "key llama.rope.dimension_count: expected an even number up to the head's 17, found 17"},
        {"embedding_length", 72, "tensor token_embd.weight: expected [72, 8], found [64, 8]"},
        {"feed_forward_length", 0, "found 0"},
        {"feed_forward_length", UINT32_MAX, "found 4294967295"},
        {"context_length", 0, "found 0"},
        {"attention.head_count", 0, "found 0"},
        {"attention.head_count", 1 << 13, "found 8192"},
        {"attention.head_count", 6, "key llama.attention.head_count: expected a divisor of embedding_length 64"},
        {"attention.head_count_kv", 0, "found 0"},
        {"attention.head_count_kv", 3, "key llama.attention.head_count_kv: expected a divisor of the 4 heads, found 3"},
        {"attention.head_count_kv", 8, "expected 1 to 4, found 8"},
        {"attention.key_length", 0, "found 0"},
        {"attention.key_length", 1 << 20, "found 1048576"},
        {"attention.value_length", 8, "key llama.attention.value_length: expected 16 as for keys, found 8"},
        {"attention.sliding_window", UINT32_MAX, "key llama.attention.sliding_window"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_refused(strstr(cases[i].line, "value_length") ? ST_UNSUPPORTED : ST_FORMAT, cases[i].line,
                       .u32_key = cases[i].key, .u32 = cases[i].value);
    assert_refused(ST_FORMAT, "key llama.attention.layer_norm_rms_epsilon: expected",
                   .f32_key = "attention.layer_norm_rms_epsilon", .f32 = 0);
    assert_refused(ST_FORMAT, "found nan", .f32_key = "attention.layer_norm_rms_epsilon", .f32 = NAN);
    assert_refused(ST_FORMAT, "tokenizer.ggml.tokens: expected at most 8 tokens", .extra_tokens = 9);
}

/* Every tensor of a family, the spare ones too. */
static const struct recipe families[] = {
    {.arch = "qwen3", .untied = true, .q_biases = true, .qk_norms = true},
    {.arch = "falcon", .untied = true, .two_norms = true},
    {.arch = "opt", .magic = "PWRI", .untied = true, .transposed_down = true, .predictors = true},
};

enum { FAMILIES = sizeof families / sizeof *families };

/* A tensor's other dimension may be free, and then it is another tensor that does not fit. */
static const char *blamed_for(const char *name, int d)
{
    if (d == 1 && !strcmp(name, "token_embd.weight"))
        return "output.weight";
    if (d == 1 && strstr(name, ".fc1.weight"))
        return name[4] == '0' ? "blk.0.fc2.weight" : "blk.1.fc2.weight";
    return name;
}

static void refuse_wrong_shapes(const struct recipe *good)
{
    struct gguf_writer w;
    struct model *m;
    assert_int_equal(load(good, &w, &m), ST_OK);
    for (int i = 0; i < gguf_n_tensors(m->file); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(m->file, i);
        struct recipe r = *good;
        char found[160];
        int64_t block = dtype_block(t->type);
        struct gguf_writer bad;
        struct model *none = NULL;
        r.reshape = t->name;
        for (int d = 0; d < t->n_dims; d++) {
            r.dims[0] = t->dims[0];
            r.dims[1] = t->n_dims == 2 ? t->dims[1] : 0;
            r.dims[d] += d == 0 ? block : 1;
            if (d == 1 && !strcmp(t->name, "position_embd.weight"))
                continue; /* as many as there are */
            const char *blamed = blamed_for(t->name, d);
            assert_int_equal(load(&r, &bad, &none), ST_FORMAT);
            snprintf(found, sizeof found, "tiny.gguf: tensor %s: expected [", blamed);
            assert_logged(found);
            if (t->n_dims == 2)
                snprintf(found, sizeof found, "], found [%d, %d]", (int)r.dims[0], (int)r.dims[1]);
            else
                snprintf(found, sizeof found, "], found [%d]", (int)r.dims[0]);
            if (blamed == t->name)
                assert_logged(found);
            gguf_writer_free(&bad);
        }
    }
    free_model(m, &w);
}

static void refuses_every_wrong_shape(void **state)
{
    (void)state;
    for (int i = 0; i < FAMILIES; i++)
        refuse_wrong_shapes(&families[i]);
    assert_refused(ST_FORMAT, "tensor blk.1.ffn_up.weight: expected [64, 96], found [64, 90]",
                   .reshape = "blk.1.ffn_up.weight", .dims = {64, 90});
    assert_refused(ST_FORMAT, "tensor blk.1.ffn_up.weight: expected [64, 96], found [64, 96, 2]",
                   .reshape = "blk.1.ffn_up.weight", .dims = {64, 96, 2});
}

/* Optional ones are left out from the start. */
static void refuse_missing_tensors(struct recipe good)
{
    struct gguf_writer w;
    struct model *m;
    good.untied = good.q_biases = good.two_norms = false;
    assert_int_equal(load(&good, &w, &m), ST_OK);
    for (int i = 0; i < gguf_n_tensors(m->file); i++) {
        struct recipe r = good;
        struct gguf_writer bad;
        struct model *none = NULL;
        r.without = gguf_tensor_at(m->file, i)->name;
        assert_int_equal(load(&r, &bad, &none), ST_FORMAT);
        /* Without the transposed down projection it is the ordinary one that is missing. */
        assert_logged(strstr(r.without, "ffn_down_t.weight") ? ".ffn_down.weight" : r.without);
        assert_logged("found no such tensor");
        gguf_writer_free(&bad);
    }
    free_model(m, &w);
}

static void refuses_every_missing_tensor(void **state)
{
    (void)state;
    for (int i = 0; i < FAMILIES; i++)
        refuse_missing_tensors(families[i]);
}

static void refuses_wrong_types(void **state)
{
    (void)state;
    assert_refused(ST_UNSUPPORTED, "tensor blk.1.ffn_norm.weight: expected F32, F16 or BF16, found type Q8_0",
                   .retype = "blk.1.ffn_norm.weight", .type = DT_Q8_0);
    assert_refused(ST_UNSUPPORTED, "tensor blk.1.attn_q.weight: expected a type of weights, found type I16",
                   .retype = "blk.1.attn_q.weight", .type = DT_I16);
    struct gguf_writer w;
    struct model *m;
    struct recipe bf16 = {.arch = "llama", .retype = "blk.1.ffn_norm.weight", .type = DT_BF16};
    assert_int_equal(load(&bf16, &w, &m), ST_OK);
    assert_int_equal(m->layers[1].ffn_norm.type, DT_BF16);
    free_model(m, &w);
}

static void refuses_tensors_that_nobody_reads(void **state)
{
    (void)state;
    assert_refused(ST_UNSUPPORTED, "tensor blk.0.ffn_up.bias: expected only tensors of a bamboo model of 2 layers",
                   .arch = "bamboo", .extra = "blk.0.ffn_up.bias");
    assert_refused(ST_UNSUPPORTED, "tensor blk.2.attn_norm.weight", .extra = "blk.2.attn_norm.weight");
    assert_refused(ST_UNSUPPORTED, "tensor blk.0.attn_q_norm.weight", .qk_norms = true);
}

static void per_layer_arrays_must_agree(void **state)
{
    (void)state;
    struct gguf_writer w;
    struct model *m;
    struct recipe r = {.arch = "llama", .without = "attention.head_count_kv", .kv_of_layers = {KV, KV}};
    assert_int_equal(load(&r, &w, &m), ST_OK);
    assert_int_equal(m->hp.n_kv_heads, KV);
    free_model(m, &w);
    assert_refused(ST_UNSUPPORTED,
                   "key llama.attention.head_count_kv: expected the same value for every layer, found 2 and 1",
                   .without = "attention.head_count_kv", .kv_of_layers = {KV, 1});
}

static void survive_flipped_bits(const struct recipe *r)
{
    struct gguf_writer w;
    write_model(&w, r);
    int refused = 0;
    for (size_t bit = 0; bit < w.header_bytes * 8; bit++) {
        struct gguf *g;
        struct model *m;
        w.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        log_catch(&caught);
        status s = gguf_open_bytes(w.bytes, w.n, "tiny.gguf", &g);
        if (s == ST_OK)
            s = model_from_gguf(g, &m);
        if (s == ST_OK)
            model_free(m);
        assert_int_equal(s != ST_OK, caught.first_error[0] != 0);
        refused += s != ST_OK;
        w.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    assert_true(refused > (int)w.header_bytes * 4);
    gguf_writer_free(&w);
}

static void survives_every_flipped_bit(void **state)
{
    (void)state;
    survive_flipped_bits(&(struct recipe){.arch = "llama"});
    for (int i = 0; i < FAMILIES; i++)
        survive_flipped_bits(&families[i]);
}

static void every_failed_allocation_is_no_memory(void **state)
{
    (void)state;
    struct gguf_writer w;
    struct recipe r = {.arch = "llama"};
    struct model *m;
    write_model(&w, &r);
    status s;
    long n = 0;
    for (;; n++) {
        struct gguf *g;
        log_catch(&caught);
        alloc_fail_at(n);
        s = gguf_open_bytes(w.bytes, w.n, "tiny.gguf", &g);
        if (s == ST_OK)
            s = model_from_gguf(g, &m);
        if (!alloc_failed())
            break;
        assert_int_equal(s, ST_NOMEM);
        assert_logged("tiny.gguf: no memory");
    }
    assert_int_equal(s, ST_OK);
    assert_true(n > 30);
    model_free(m);
    gguf_writer_free(&w);
}

static void load_reports_a_missing_file(void **state)
{
    (void)state;
    struct model *m;
    log_catch(&caught);
    assert_int_equal(model_load("/nonexistent/model.gguf", &m), ST_IO);
    assert_logged("/nonexistent/model.gguf: cannot open");
    model_free(NULL);
}

/* Files that another program wrote. */
static void loads_the_files_of_the_vectors(void **state)
{
    (void)state;
    DIR *d = opendir(TEST_DATA);
    int n = 0;
    for (struct dirent *e; d && (e = readdir(d));) {
        char path[512];
        struct model *m;
        size_t length = strlen(e->d_name);
        bool family = !strncmp(e->d_name, "family-", 7);
        if ((strncmp(e->d_name, "tiny-", 5) && !family) || length < 5 || strcmp(e->d_name + length - 5, ".gguf"))
            continue;
        snprintf(path, sizeof path, "%s/%s", TEST_DATA, e->d_name);
        log_catch(&caught);
        if (model_load(path, &m) != ST_OK)
            fail_msg("%s", caught.first_error);
        assert_int_equal(m->hp.window != 0, strstr(e->d_name, "mistral") != NULL);
        assert_int_equal(m->rope_factors.data != NULL, strstr(e->d_name, "llama3") != NULL);
        assert_int_equal(m->layers[0].q_bias.data != NULL, strstr(e->d_name, "qwen2") || strstr(e->d_name, "-opt"));
        assert_int_equal(m->layers[0].fc2.data != NULL, strstr(e->d_name, "-sparse") != NULL);
        assert_int_equal(m->hp.parallel, strstr(e->d_name, "-falcon") != NULL);
        assert_int_equal(m->layers[0].q_norm.data != NULL, strstr(e->d_name, "qwen3") != NULL);
        const int block = family ? 0 : dtype_block(m->layers[0].down.type);
        assert_int_equal(model_neuron_unit(m), block > SUM_SEGMENT ? block : SUM_SEGMENT);
        model_free(m);
        n++;
    }
    if (d)
        closedir(d);
    if (n == 0)
        skip();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loads_llama),
        cmocka_unit_test(loads_qwen2),
        cmocka_unit_test(loads_qwen3),
        cmocka_unit_test(loads_llama3_factors),
        cmocka_unit_test(loads_powerinfer),
        cmocka_unit_test(loads_bamboo),
        cmocka_unit_test(loads_falcon),
        cmocka_unit_test(loads_opt),
        cmocka_unit_test(neuron_unit_is_the_largest_block),
        cmocka_unit_test(head_unit_makes_whole_blocks),
        cmocka_unit_test(key_heads_are_cut_where_turns_are_whole),
        cmocka_unit_test(reads_rope_and_window),
        cmocka_unit_test(refuses_unknown_architectures),
        cmocka_unit_test(refuses_missing_keys),
        cmocka_unit_test(refuses_impossible_numbers),
        cmocka_unit_test(refuses_every_wrong_shape),
        cmocka_unit_test(refuses_every_missing_tensor),
        cmocka_unit_test(refuses_wrong_types),
        cmocka_unit_test(refuses_tensors_that_nobody_reads),
        cmocka_unit_test(per_layer_arrays_must_agree),
        cmocka_unit_test(survives_every_flipped_bit),
        cmocka_unit_test(every_failed_allocation_is_no_memory),
        cmocka_unit_test(load_reports_a_missing_file),
        cmocka_unit_test(loads_the_files_of_the_vectors),
    };
    return cmocka_run_group_tests_name("model", tests, catch_errors, NULL);
}
