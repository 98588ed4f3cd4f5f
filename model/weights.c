/* Finding a model's tensors in its file and checking every shape and type before anybody computes with them. */
#include "model/model.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/log.h"
#include "model/family.h"
#include "model/gguf_parts.h"
#include "model/hparams.h"
#include "model/weights.h"

static struct tensor_need need(enum role role, int64_t rows, int64_t cols)
{
    return (struct tensor_need){.role = role, .rows = rows, .cols = cols};
}

static status find_latent(struct finder *f, const struct hparams *hp, int layer, struct layer_weights *w)
{
    const int64_t d = hp->d_model, rank = hp->latent.rank, q_rank = hp->latent.q_rank, heads = hp->n_heads;
    const int64_t q_rows = heads * hp->head_dim, plain = hp->head_dim - hp->n_rot;
    const bool one = layer_tensor(f, layer, "attn_kv_b.weight");
    const enum presence low = q_rank ? ALWAYS : NEVER, both = one ? ALWAYS : NEVER, apart = one ? NEVER : ALWAYS;
    const struct layer_tensor tensors[] = {
        {"attn_q_a.weight", AT(q_low), low, {ROLE_MATRIX, q_rank, d, 0}},
        {"attn_q_a_norm.weight", AT(q_low_norm), low, {ROLE_VECTOR, 1, q_rank, 0}},
        {q_rank ? "attn_q_b.weight" : "attn_q.weight", AT(q), ALWAYS, {ROLE_MATRIX, q_rows, q_rank ? q_rank : d, 0}},
        {"attn_kv_a_mqa.weight", AT(k), ALWAYS, {ROLE_MATRIX, rank + hp->n_rot, d, 0}},
        {"attn_kv_a_norm.weight", AT(c_norm), ALWAYS, {ROLE_VECTOR, 1, rank, 0}},
        {"attn_k_b.weight", AT(q_in), apart, {ROLE_MATRIX, rank, plain, heads}},
        {"attn_v_b.weight", AT(c_out), apart, {ROLE_MATRIX, hp->value_dim, rank, heads}},
        {"attn_kv_b.weight", AT(c_both), both, {ROLE_MATRIX, heads * (plain + hp->value_dim), rank, 0}},
        {"attn_output.weight", AT(o), ALWAYS, {ROLE_MATRIX, d, heads * hp->value_dim, 0}},
    };
    return find_table(f, layer, tensors, sizeof tensors / sizeof *tensors, w);
}

/* Where the file has q, k and v in one, their parts. */
static void part_rows(struct layer_weights *w, int64_t q_rows, int64_t kv_rows)
{
    const struct matrix all = w->q;
    w->q = rows_of(&all, 0, q_rows);
    w->k = rows_of(&all, q_rows, q_rows + kv_rows);
    w->v = rows_of(&all, q_rows + kv_rows, q_rows + 2 * kv_rows);
}

static void part_biases(struct layer_weights *w, int64_t q_rows, int64_t kv_rows)
{
    const struct matrix all = w->q_bias;
    w->q_bias = columns_of(&all, 0, q_rows);
    w->k_bias = columns_of(&all, q_rows, q_rows + kv_rows);
    w->v_bias = columns_of(&all, q_rows + kv_rows, q_rows + 2 * kv_rows);
}

static status find_delta(struct finder *f, const struct hparams *hp, int layer, struct layer_weights *w)
{
    const struct delta_net *n = &hp->delta;
    const int64_t d = hp->d_model, values = n->value_heads * n->size, channels = 2 * n->key_heads * n->size + values;
    const enum presence one = hp->family->beta_alpha ? ALWAYS : NEVER, apart = hp->family->beta_alpha ? NEVER : ALWAYS;
    const struct layer_tensor tensors[] = {
        {"attn_qkv.weight", AT(qkv), ALWAYS, {ROLE_MATRIX, channels, d, 0}},
        {"attn_gate.weight", AT(z), ALWAYS, {ROLE_MATRIX, values, d, 0}},
        {"ssm_ba.weight", AT(beta_alpha), one, {ROLE_MATRIX, 2 * n->value_heads, d, 0}},
        {"ssm_beta.weight", AT(beta), apart, {ROLE_MATRIX, n->value_heads, d, 0}},
        {"ssm_alpha.weight", AT(alpha), apart, {ROLE_MATRIX, n->value_heads, d, 0}},
        {"ssm_conv1d.weight", AT(taps), ALWAYS, {ROLE_FLOATS, channels, n->taps, 0}},
        {"ssm_dt.bias", AT(dt_bias), ALWAYS, {ROLE_VECTOR, 1, n->value_heads, 0}},
        {"ssm_a", AT(decay), ALWAYS, {ROLE_VECTOR, 1, n->value_heads, 0}},
        {"ssm_norm.weight", AT(head_norm), ALWAYS, {ROLE_VECTOR, 1, n->size, 0}},
        {"ssm_out.weight", AT(o), ALWAYS, {ROLE_MATRIX, d, values, 0}},
    };
    return find_table(f, layer, tensors, sizeof tensors / sizeof *tensors, w);
}

static status find_attention(struct finder *f, const struct hparams *hp, int layer, struct layer_weights *w)
{
    const int64_t d = hp->d_model, dim = hp->head_dim, mixed = hp->n_heads * dim, kv_rows = hp->n_kv_heads * dim;
    const int64_t q_rows = hp->gated ? 2 * mixed : mixed;
    const struct family *is = hp->family;
    const bool fused = is->fused_qkv || layer_tensor(f, layer, "attn_qkv.weight");
    const enum presence split = fused ? NEVER : ALWAYS, all = fused ? ALWAYS : NEVER;
    /* Where the weights are fused, biases may be. */
    const bool one_bias = fused && layer_tensor(f, layer, "attn_qkv.bias");
    const enum presence bias = one_bias ? NEVER : is->qkv_bias, all_bias = one_bias ? is->qkv_bias : NEVER;
    const struct layer_tensor tensors[] = {
        {"attn_q.weight", AT(q), split, {ROLE_MATRIX, q_rows, d, 0}},
        {"attn_k.weight", AT(k), split, {ROLE_MATRIX, kv_rows, d, 0}},
        {"attn_v.weight", AT(v), split, {ROLE_MATRIX, kv_rows, d, 0}},
        {"attn_qkv.weight", AT(q), all, {ROLE_MATRIX, q_rows + 2 * kv_rows, d, 0}},
        {"attn_qkv.bias", AT(q_bias), all_bias, {ROLE_VECTOR, 1, q_rows + 2 * kv_rows, 0}},
        {"attn_q.bias", AT(q_bias), bias, {ROLE_VECTOR, 1, q_rows, 0}},
        {"attn_k.bias", AT(k_bias), bias, {ROLE_VECTOR, 1, kv_rows, 0}},
        {"attn_v.bias", AT(v_bias), bias, {ROLE_VECTOR, 1, kv_rows, 0}},
        {"attn_q_norm.weight", AT(q_norm), is->head_norms, {ROLE_VECTOR, 1, is->whole_norms ? mixed : dim, 0}},
        {"attn_k_norm.weight", AT(k_norm), is->head_norms, {ROLE_VECTOR, 1, is->whole_norms ? kv_rows : dim, 0}},
        {"attn_sinks.weight", AT(sinks), is->sinks ? ALWAYS : NEVER, {ROLE_VECTOR, 1, hp->n_heads, 0}},
        {"attn_output.weight", AT(o), ALWAYS, {ROLE_MATRIX, d, mixed, 0}},
        {"attn_output.bias", AT(o_bias), is->o_bias, {ROLE_VECTOR, 1, d, 0}},
    };
    status s = find_table(f, layer, tensors, sizeof tensors / sizeof *tensors, w);
    if (s == ST_OK && fused)
        part_rows(w, q_rows, kv_rows);
    if (s == ST_OK && one_bias && w->q_bias.data)
        part_biases(w, q_rows, kv_rows);
    return s;
}

static status find_norm(struct finder *f, const struct hparams *hp, int layer, const char *name, struct matrix *weight,
                        struct matrix *bias)
{
    char full[TENSOR_NAME];
    snprintf(full, sizeof full, "blk.%d.%s.weight", layer, name);
    status s = find_required(f, full, need(ROLE_VECTOR, 1, hp->d_model), weight);
    snprintf(full, sizeof full, "blk.%d.%s.bias", layer, name);
    return s == ST_OK && hp->norm == NORM_LAYER ? find_required(f, full, need(ROLE_VECTOR, 1, hp->d_model), bias) : s;
}

static status find_norms(struct finder *f, const struct hparams *hp, int layer, struct layer_weights *w)
{
    const struct family *is = hp->family;
    const struct layer_tensor after[] = {
        {"post_attention_norm.weight", AT(attn_post_norm), ALWAYS, {ROLE_VECTOR, 1, hp->d_model, 0}},
        {"post_ffw_norm.weight", AT(ffn_post_norm), ALWAYS, {ROLE_VECTOR, 1, hp->d_model, 0}},
    };
    status s = is->post_norms ? find_table(f, layer, after, sizeof after / sizeof *after, w) : ST_OK;
    if (s != ST_OK || is->no_norms)
        return s;
    const bool second = is->attn_norm_2 && layer_tensor(f, layer, "attn_norm_2.weight");
    s = find_norm(f, hp, layer, second ? "attn_norm_2" : "attn_norm", &w->attn_norm, &w->attn_norm_bias);
    return s == ST_OK ? find_norm(f, hp, layer, is->ffn_norm ? is->ffn_norm : "ffn_norm", &w->ffn_norm,
                                  &w->ffn_norm_bias) : s;
}

/* A layer's only bundle. */
static struct bundle dense_bundle(const struct layer_weights *w)
{
    return (struct bundle){.n = w->up.rows, .gate = w->gate, .gate_bias = w->gate_bias, .up = w->up,
                           .up_bias = w->up_bias, .down = w->down, .down_t = w->down_t};
}

static status find_ffn(struct finder *f, const struct hparams *hp, int layer, struct layer_weights *w)
{
    const int64_t d = hp->d_model, d_ff = hp->n_experts ? hp->d_dense : hp->d_ff;
    const bool powerinfer = gguf_is_powerinfer(f->g);
    const bool transposed = powerinfer && layer_tensor(f, layer, "ffn_down_t.weight");
    const enum presence bias = hp->family->ffn_bias;
    const bool fused = hp->family->fused_gate;
    /* A predictor is as wide as it likes. */
    const struct gguf_tensor *fc1 = powerinfer ? layer_tensor(f, layer, "fc1.weight") : NULL;
    const bool predictor = powerinfer && (fc1 || layer_tensor(f, layer, "fc2.weight"));
    const int64_t r = fc1 && fc1->dims[1] <= MAX_D_FF ? fc1->dims[1] : 1;
    const struct layer_tensor tensors[] = {
        {"ffn_gate.weight", AT(gate), hp->has_gate && !fused ? ALWAYS : NEVER, {ROLE_MATRIX, d_ff, d, 0}},
        {"ffn_up.weight", AT(up), ALWAYS, {ROLE_MATRIX, fused ? 2 * d_ff : d_ff, d, 0}},
        {"ffn_gate.bias", AT(gate_bias), hp->has_gate ? bias : NEVER, {ROLE_VECTOR, 1, d_ff, 0}},
        {"ffn_up.bias", AT(up_bias), bias, {ROLE_VECTOR, 1, d_ff, 0}},
        {"ffn_down.weight", AT(down), transposed ? NEVER : ALWAYS, {ROLE_MATRIX, d, d_ff, 0}},
        {"ffn_down_t.weight", AT(down_t), transposed ? ALWAYS : NEVER, {ROLE_MATRIX, d_ff, d, 0}},
        {transposed ? "ffn_down_t.bias" : "ffn_down.bias", AT(down_bias), bias, {ROLE_VECTOR, 1, d, 0}},
        {"fc1.weight", AT(fc1), predictor ? ALWAYS : NEVER, {ROLE_MATRIX, r, d, 0}},
        {"fc2.weight", AT(fc2), predictor ? ALWAYS : NEVER, {ROLE_MATRIX, d_ff, r, 0}},
    };
    status s = find_table(f, layer, tensors, sizeof tensors / sizeof *tensors, w);
    if (s == ST_OK && fused) {
        w->gate = rows_of(&w->up, 0, d_ff);
        w->up = rows_of(&w->up, d_ff, 2 * d_ff);
    }
    w->bundles[0] = dense_bundle(w);
    return s;
}

static status find_layer(struct finder *f, const struct model *m, int layer, struct layer_weights *w)
{
    status s = find_norms(f, &m->hp, layer, w);
    if (s == ST_OK)
        s = (m->hp.layer[layer].kind == LAYER_DELTA ? find_delta : m->hp.latent.rank ? find_latent : find_attention)
            (f, &m->hp, layer, w);
    if (s != ST_OK)
        return s;
    return w->n_bundles > 1 ? find_experts(f, &m->hp, layer, w) : find_ffn(f, &m->hp, layer, w);
}

/* Frequencies are divided by the factors, so each must be a positive number. */
static status check_rope_factors(const struct model *m, const struct matrix *r)
{
    if (!r->data)
        return ST_OK;
    struct reader in = {r->data, r->data + dtype_row_bytes(r->type, r->cols), false};
    for (int64_t i = 0; i < r->cols; i++) {
        float factor = read_f32(&in);
        if (!(factor >= 1e-6f && factor <= 1e6f)) {
            log_error("%s: tensor %s: expected factors of 1e-06 to 1e+06, found %g at %" PRId64, gguf_path(m->file),
                      r->name, (double)factor, i);
            return ST_FORMAT;
        }
    }
    return ST_OK;
}

/* Those for short and for long contexts come together. */
static status find_rope_factors(struct finder *f, struct model *m)
{
    static const char *const names[] = {"rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"};
    struct matrix *const to[] = {&m->rope_factors, &m->rope_long, &m->rope_short};
    const bool both = gguf_find_tensor(f->g, names[1]) || gguf_find_tensor(f->g, names[2]);
    status s = ST_OK;
    for (int i = 0; s == ST_OK && i < 3; i++) {
        s = (both && i > 0 ? find_required : find_optional)(f, names[i], need(ROLE_F32, 1, m->hp.n_rot / 2), to[i]);
        s = s == ST_OK ? check_rope_factors(m, to[i]) : s;
    }
    return s;
}

static status find_globals(struct finder *f, struct model *m)
{
    const struct hparams *hp = &m->hp;
    status s = find_required(f, "token_embd.weight", need(ROLE_MATRIX, hp->n_vocab, hp->d_model), &m->embedding);
    if (s == ST_OK)
        s = find_required(f, "output_norm.weight", need(ROLE_VECTOR, 1, hp->d_model), &m->out_norm);
    if (s == ST_OK && hp->norm == NORM_LAYER)
        s = find_required(f, "output_norm.bias", need(ROLE_VECTOR, 1, hp->d_model), &m->out_norm_bias);
    const struct gguf_tensor *positions = gguf_find_tensor(f->g, "position_embd.weight");
    if (s == ST_OK && positions && hp->n_rot == 0)
        s = find_required(f, "position_embd.weight", need(ROLE_MATRIX, positions->dims[1], hp->d_model), &m->positions);
    m->output = m->embedding;
    if (s == ST_OK && !hp->family->tied)
        s = find_optional(f, "output.weight", need(ROLE_MATRIX, hp->n_vocab, hp->d_model), &m->output);
    return s == ST_OK && hp->family->rope_factors ? find_rope_factors(f, m) : s;
}

/* "blk.N." of a block behind the layers. */
static bool of_predictor(const struct hparams *hp, const char *name)
{
    char *end;
    if (strncmp(name, "blk.", 4) != 0 || name[4] < '0' || name[4] > '9')
        return false;
    const long block = strtol(name + 4, &end, 10);
    return *end == '.' && block >= hp->n_layers && block < hp->n_layers + hp->n_predictors;
}

/* A tensor that nobody reads would change the model's results if it were left out: refused, as llama.cpp does. */
static status check_all_used(const struct finder *f, const struct model *m)
{
    for (int i = 0; i < gguf_n_tensors(f->g); i++) {
        const char *name = gguf_tensor_at(f->g, i)->name;
        if (!f->used[i] && !of_predictor(&m->hp, name)) {
            char printable[TENSOR_NAME];
            gguf_printable(name, strlen(name), printable, sizeof printable);
            log_error("%s: tensor %s: expected only tensors of a %s model of %d layers, found one that hearth does "
                      "not know", gguf_path(f->g), printable, m->hp.arch_name, m->hp.n_layers);
            return ST_UNSUPPORTED;
        }
    }
    return ST_OK;
}

static status no_memory(const struct gguf *g)
{
    log_error("%s: no memory for the table of its weights", gguf_path(g));
    return ST_NOMEM;
}

/* The tables of all layers, still empty. */
static bool make_tables(struct model *m)
{
    size_t n = 0;
    for (int i = 0; i < m->hp.n_layers; i++)
        n += (size_t)bundles_count(&m->hp, i);
    m->layers = calloc((size_t)m->hp.n_layers, sizeof *m->layers);
    m->bundles = calloc(n, sizeof *m->bundles);
    for (int i = 0, first = 0; m->layers && m->bundles && i < m->hp.n_layers; first += m->layers[i++].n_bundles) {
        m->layers[i].n_bundles = bundles_count(&m->hp, i);
        m->layers[i].bundles = m->bundles + first;
    }
    return m->layers && m->bundles;
}

static status find_weights(struct model *m)
{
    struct finder f = {.g = m->file};
    const bool tables = make_tables(m);
    f.used = calloc((size_t)gguf_n_tensors(m->file), sizeof *f.used); /* hparams_read found one at least */
    status s = tables && f.used ? find_globals(&f, m) : no_memory(m->file);
    for (int i = 0; s == ST_OK && i < m->hp.n_layers; i++)
        s = find_layer(&f, m, i, &m->layers[i]);
    if (s == ST_OK)
        s = check_all_used(&f, m);
    free(f.used);
    return s;
}

status model_from_gguf(struct gguf *g, struct model **out)
{
    struct model *m = calloc(1, sizeof *m);
    if (!m) {
        status s = no_memory(g);
        gguf_close(g);
        return s;
    }
    m->file = g;
    status s = hparams_read(g, &m->hp);
    if (s == ST_OK)
        s = find_weights(m);
    if (s != ST_OK) {
        model_free(m);
        return s;
    }
    *out = m;
    return ST_OK;
}

status model_load(const char *path, struct model **out)
{
    struct gguf *g;
    status s = gguf_open(path, &g);
    return s == ST_OK ? model_from_gguf(g, out) : s;
}

void model_free(struct model *m)
{
    if (!m)
        return;
    free(m->layers);
    free(m->bundles);
    gguf_close(m->file);
    free(m);
}

bool model_has_biased_gates(const struct model *m)
{
    for (int i = 0; i < m->hp.n_layers; i++) {
        const struct bundle *b = m->layers[i].bundles;
        if (b->gate.data && (b->gate_bias.data || b->up_bias.data))
            return true;
    }
    return false;
}

int64_t model_neuron_unit(const struct model *m)
{
    /* Blocks are 1, 32 or 256: the largest of them and the segment is a multiple of the others. Only blocks that run
     * along the neurons count; those of a transposed down projection do not. */
    int64_t unit = SUM_SEGMENT;
    for (int i = 0; i < m->hp.n_layers; i++) {
        const struct bundle *b = m->layers[i].bundles, *last = b + m->layers[i].n_bundles - 1;
        for (int k = 0; k < 2; k++) { /* experts have the same types */
            const struct matrix *down = k ? &last->down : &b->down;
            if (down->data && dtype_block(down->type) > unit)
                unit = dtype_block(down->type);
        }
    }
    return unit;
}

int64_t model_head_unit(const struct model *m, int layer)
{
    /* Blocks are powers of two, and so are the units: the largest is a multiple of the others. Where value heads take
     * key heads in turn, the columns of a turn may be no whole blocks, and what is cut out of each would be none. */
    const int64_t columns = model_head_columns(&m->hp, layer), heads = model_heads(&m->hp, layer);
    int64_t unit = 1;
    if (m->hp.whole_norms)
        return m->hp.n_kv_heads;
    for (int i = 0; i < m->hp.n_layers; i++) {
        while (m->hp.layer[i].kind == m->hp.layer[layer].kind && unit * columns % dtype_block(m->layers[i].o.type))
            unit *= 2;
    }
    return heads % unit ? heads : unit;
}
