#include "tools/synth/tensors.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include "tools/synth/blocks.h"
#include "tools/synth/firing.h"

bool is_sparse(const struct synth_options *o) { return o->ffn != FFN_SILU; }

int64_t constant_columns(const struct shape *s) { return s->architecture == OPT ? 0 : GROUP; }

void layer_biases(const struct synth_options *o, int layer, float *bias)
{
    struct random r = {o->seed ^ 0x6e6575726f6e73u}; /* apart from the tensors' own */
    for (int i = 0; i < layer; i++)
        draw(&r);
    firing_biases(o->live, o->skew, o->ffn == FFN_DRELU, draw(&r), o->shape->d_ff, bias);
}

struct list {
    struct tensor *at;
    int n;
    const struct synth_options *o;
    int layer;
};

static struct tensor *add(struct list *l, const char *name, enum dtype type, int64_t cols, int64_t rows,
                          enum content content)
{
    struct tensor *t = &l->at[l->n++];
    char prefix[32] = "";
    if (l->layer >= 0)
        snprintf(prefix, sizeof prefix, "blk.%d.", l->layer);
    *t = (struct tensor){.type = type, .cols = cols, .rows = rows, .content = content, .first = 1, .rest = 1,
                         .layer = l->layer, .bytes = (uint64_t)rows * dtype_row_bytes(type, cols)};
    snprintf(t->name, sizeof t->name, "%s%s", prefix, name);
    /* The scales of a dense model's blocks go up from this deviation. */
    t->deviation = 1 / sqrtf((float)cols) / (is_sparse(l->o) ? SCALES_RMS : 1);
    return t;
}

static enum dtype body_of(const struct synth_options *o) { return o->shape->experts ? o->type->beside : o->type->body; }

static void add_matrix(struct list *l, const char *name, int64_t cols, int64_t rows)
{
    add(l, name, body_of(l->o), cols, rows, RANDOM);
}

/* A bias, where the model has such. */
static void add_bias(struct list *l, const char *name, int64_t n, enum content content)
{
    if (l->o->shape->architecture == OPT || l->o->shape->architecture == GPT_OSS)
        add(l, name, DT_F32, n, 1, content);
}

/* A norm that hides the constant columns from what reads it. */
static struct tensor *add_norm(struct list *l, const char *name, const char *bias, float rest)
{
    struct tensor *t = add(l, name, DT_F32, l->o->shape->d_model, 1, LEVELS);
    t->rest = rest;
    t->first = is_sparse(l->o) && constant_columns(l->o->shape) > 0 ? 0 : rest;
    if (l->o->shape->architecture == OPT)
        add_bias(l, bias, t->cols, NOISE);
    return t;
}

/* A matrix whose product is added to the residual stream, from inputs whose mean square is `square`. */
static void add_adder(struct list *l, const char *name, int64_t cols, double square)
{
    struct tensor *t = add(l, name, body_of(l->o), cols, l->o->shape->d_model, RANDOM);
    if (is_sparse(l->o)) {
        t->deviation *= ADDED / (float)sqrt(square);
        t->zero_rows = constant_columns(l->o->shape);
    }
}

/* The norm before an FFN makes the residual stream's square 1; what was added until then had made it larger, the
 * constant columns not. */
static void add_ffn_norm(struct list *l)
{
    const enum architecture a = l->o->shape->architecture;
    const bool other = a == GPT_OSS || a == QWEN3NEXT; /* whose FFN reads a norm of another name */
    struct tensor *t = add_norm(l, other ? "post_attention_norm.weight" : "ffn_norm.weight", "ffn_norm.bias", 1);
    t->ffn_norm = true;
    const bool adds = is_sparse(l->o) && l->o->shape->architecture != OPT;
    t->first = adds ? sqrtf(1 + ADDED * ADDED * (float)(2 * l->layer + 1)) : 1;
}

/* A gated delta net, whose heads forget half in a token or so. */
static void add_net(struct list *l)
{
    const int64_t d = l->o->shape->d_model, values = NET_VALUE_HEADS * NET_SIZE;
    const int64_t channels = 2 * NET_KEY_HEADS * NET_SIZE + values;
    add_norm(l, "attn_norm.weight", NULL, 1);
    add_matrix(l, "attn_qkv.weight", d, channels);
    add_matrix(l, "attn_gate.weight", d, values);
    add_matrix(l, "ssm_ba.weight", d, 2 * NET_VALUE_HEADS);
    add(l, "ssm_conv1d.weight", DT_F32, NET_TAPS, channels, ROUTER);
    add(l, "ssm_dt.bias", DT_F32, NET_VALUE_HEADS, 1, NOISE);
    struct tensor *decay = add(l, "ssm_a", DT_F32, NET_VALUE_HEADS, 1, LEVELS);
    decay->first = decay->rest = -1;
    add(l, "ssm_norm.weight", DT_F32, NET_SIZE, 1, LEVELS);
    add_adder(l, "ssm_out.weight", values, 1);
}

static void add_attention(struct list *l)
{
    const struct shape *s = l->o->shape;
    const int64_t d = s->d_model, head_dim = s->head_dim;
    const int64_t q_rows = s->heads * head_dim, kv_rows = s->kv_heads * head_dim;
    if (s->architecture == QWEN3NEXT && (l->layer + 1) % NET_INTERVAL) {
        add_net(l);
        return;
    }
    add_norm(l, "attn_norm.weight", "attn_norm.bias", 1);
    add_matrix(l, "attn_q.weight", d, s->architecture == QWEN3NEXT ? 2 * q_rows : q_rows);
    add_bias(l, "attn_q.bias", q_rows, NOISE);
    add_matrix(l, "attn_k.weight", d, kv_rows);
    add_bias(l, "attn_k.bias", kv_rows, NOISE);
    add_matrix(l, "attn_v.weight", d, kv_rows);
    add_bias(l, "attn_v.bias", kv_rows, NOISE);
    if (s->architecture == QWEN3MOE || s->architecture == QWEN3NEXT) {
        add(l, "attn_q_norm.weight", DT_F32, head_dim, 1, LEVELS);
        add(l, "attn_k_norm.weight", DT_F32, head_dim, 1, LEVELS);
    }
    if (s->architecture == GPT_OSS)
        add(l, "attn_sinks.weight", DT_F32, s->heads, 1, NOISE);
    add_adder(l, "attn_output.weight", q_rows, 1);
    add_bias(l, "attn_output.bias", d, NOISE);
}

static void add_ffn(struct list *l, double ffn_square)
{
    const struct shape *s = l->o->shape;
    const int64_t d = s->d_model;
    const enum dtype body = l->o->type->body;
    const enum ffn ffn = l->o->ffn;
    if (ffn != FFN_RELU)
        add(l, "ffn_gate.weight", body, d, s->d_ff, ffn == FFN_SILU ? RANDOM : DECIDING_ROWS);
    add(l, "ffn_up.weight", body, d, s->d_ff, ffn == FFN_RELU || ffn == FFN_DRELU ? DECIDING_ROWS : RANDOM);
    add_bias(l, "ffn_up.bias", s->d_ff, UP_BIAS);
    add_adder(l, "ffn_down.weight", s->d_ff, ffn_square);
    add_bias(l, "ffn_down.bias", d, NOISE);
}

/* A matrix of each expert, and its bias where the model has such. */
static void add_stacked(struct list *l, const char *name, int64_t cols, int64_t rows)
{
    const int64_t n = l->o->shape->experts;
    char full[48];
    snprintf(full, sizeof full, "ffn_%s_exps.weight", name);
    add(l, full, l->o->type->body, cols, n * rows, RANDOM)->slabs = n;
    snprintf(full, sizeof full, "ffn_%s_exps.bias", name);
    if (l->o->shape->architecture == GPT_OSS)
        add(l, full, DT_F32, rows, n, NOISE);
}

static void add_experts(struct list *l)
{
    const struct shape *s = l->o->shape;
    add(l, "ffn_gate_inp.weight", DT_F32, s->d_model, s->experts, ROUTER);
    add_bias(l, "ffn_gate_inp.bias", s->experts, NOISE);
    add_stacked(l, "gate", s->d_model, s->d_ff);
    add_stacked(l, "up", s->d_model, s->d_ff);
    add_stacked(l, "down", s->d_ff, s->d_model);
    if (s->architecture != QWEN3NEXT)
        return;
    add(l, "ffn_gate_inp_shexp.weight", DT_F32, s->d_model, 1, ROUTER);
    add_matrix(l, "ffn_gate_shexp.weight", s->d_model, s->d_ff);
    add_matrix(l, "ffn_up_shexp.weight", s->d_model, s->d_ff);
    add_adder(l, "ffn_down_shexp.weight", s->d_ff, 1);
}

static void add_layer(struct list *l, double ffn_square)
{
    add_attention(l);
    add_ffn_norm(l);
    if (l->o->shape->experts)
        add_experts(l);
    else
        add_ffn(l, ffn_square);
}

/* Mean square of the FFN's activations. ST_NOMEM. */
static bool activation_square(const struct synth_options *o, double *square)
{
    *square = 1;
    if (!is_sparse(o))
        return true;
    float *bias = malloc(o->shape->d_ff * sizeof *bias);
    if (!bias)
        return false;
    layer_biases(o, 0, bias);
    *square = firing_square(bias, o->shape->d_ff, o->ffn == FFN_DRELU);
    free(bias);
    return true;
}

struct tensor *list_tensors(const struct synth_options *o, int *n)
{
    enum { LAYER_TENSORS = 19, OTHERS = 6 };
    const struct shape *s = o->shape;
    double square;
    struct list l = {.o = o, .layer = -1};
    l.at = calloc(LAYER_TENSORS * (size_t)o->layers + OTHERS, sizeof *l.at);
    if (!l.at || !activation_square(o, &square)) {
        free(l.at);
        return NULL;
    }
    struct tensor *t = add(&l, "token_embd.weight", s->tied ? o->type->output : body_of(o), s->d_model, s->vocab,
                           is_sparse(o) ? EMBEDDING : RANDOM);
    if (is_sparse(o))
        t->deviation = 1 / SCALES_RMS;
    if (s->architecture == OPT)
        add(&l, "position_embd.weight", o->type->body, s->d_model, s->context + 2, RANDOM)->deviation =
            ADDED / SCALES_RMS;
    for (uint32_t i = 0; i < o->layers; i++) {
        l.layer = (int)i;
        add_layer(&l, square);
    }
    l.layer = -1;
    /* An embedding of deviation 1 that is the output matrix too would make logits of the root of d_model. */
    add_norm(&l, "output_norm.weight", "output_norm.bias",
             is_sparse(o) && s->tied ? 1 / sqrtf((float)s->d_model) : 1);
    if (!s->tied)
        add(&l, "output.weight", o->type->output, s->d_model, s->vocab, RANDOM);
    if (s->rope_factor > 0)
        add(&l, "rope_freqs.weight", DT_F32, s->head_dim / 2, 1, ROPE);
    *n = l.n;
    return l.at;
}
