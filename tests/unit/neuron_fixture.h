/* A tiny model and a neuron file for it, for tests and the fuzz target. */
#ifndef HEARTH_TESTS_NEURON_FIXTURE_H
#define HEARTH_TESTS_NEURON_FIXTURE_H

#include "model/model.h"
#include "sparsity/neurons.h"
#include "tests/unit/gguf_writer.h"

enum { TINY_LAYERS = 2, TINY_D = 64, TINY_FF = 96, TINY_RANK = 32, TINY_HEAD = 16, TINY_VOCAB = 8,
       TINY_EXPERTS = 3, TINY_DENSE = 40 };

/* What is special about a tiny model. */
struct tiny_recipe {
    bool powerinfer;           /* with predictors in the file */
    uint32_t gate_type, up_type; /* 0: F32 */
    uint32_t context;          /* 0: 32; another one gives another hash */
};

struct tiny_model {
    struct gguf_writer file;
    struct model *model; /* NULL: its file was refused */
};

static inline void tiny_tensor(struct gguf_writer *w, int layer, const char *name, uint32_t type, int64_t cols,
                               int64_t rows)
{
    char full[64] = "";
    if (layer >= 0)
        snprintf(full, sizeof full, "blk.%d.", layer);
    strncat(full, name, sizeof full - strlen(full) - 1);
    gguf_add_tensor(w, full, type, rows > 1 ? 2 : 1, (int64_t[]){cols, rows}, NULL);
}

static inline void tiny_model_open(struct tiny_model *t, struct tiny_recipe r)
{
    struct gguf_writer *w = &t->file;
    struct gguf *g;
    t->model = NULL;
    gguf_writer_begin(w, r.powerinfer ? "PWRI" : "GGUF", 3);
    gguf_key_string(w, "general.architecture", "llama");
    gguf_key_u32(w, "llama.block_count", TINY_LAYERS);
    gguf_key_u32(w, "llama.embedding_length", TINY_D);
    gguf_key_u32(w, "llama.feed_forward_length", TINY_FF);
    gguf_key_u32(w, "llama.context_length", r.context ? r.context : 32);
    gguf_key_u32(w, "llama.attention.head_count", TINY_D / TINY_HEAD);
    gguf_key_f32(w, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    tiny_tensor(w, -1, "token_embd.weight", DT_F32, TINY_D, TINY_VOCAB);
    tiny_tensor(w, -1, "output_norm.weight", DT_F32, TINY_D, 1);
    for (int i = 0; i < TINY_LAYERS; i++) {
        tiny_tensor(w, i, "attn_norm.weight", DT_F32, TINY_D, 1);
        tiny_tensor(w, i, "ffn_norm.weight", DT_F32, TINY_D, 1);
        tiny_tensor(w, i, "attn_q.weight", DT_F32, TINY_D, TINY_D);
        tiny_tensor(w, i, "attn_k.weight", DT_F32, TINY_D, TINY_D);
        tiny_tensor(w, i, "attn_v.weight", DT_F32, TINY_D, TINY_D);
        tiny_tensor(w, i, "attn_output.weight", DT_F32, TINY_D, TINY_D);
        tiny_tensor(w, i, "ffn_gate.weight", r.gate_type, TINY_D, TINY_FF);
        tiny_tensor(w, i, "ffn_up.weight", r.up_type, TINY_D, TINY_FF);
        if (!r.powerinfer) {
            tiny_tensor(w, i, "ffn_down.weight", DT_F32, TINY_FF, TINY_D);
            continue;
        }
        tiny_tensor(w, i, "ffn_down_t.weight", DT_F32, TINY_D, TINY_FF);
        tiny_tensor(w, i, "fc1.weight", DT_F32, TINY_D, TINY_RANK);
        tiny_tensor(w, i, "fc2.weight", DT_F32, TINY_RANK, TINY_FF);
    }
    gguf_writer_end(w);
    if (gguf_open_bytes(w->bytes, w->n, "tiny.gguf", &g) != ST_OK || model_from_gguf(g, &t->model) != ST_OK)
        t->model = NULL;
}

static inline void tiny_model_close(struct tiny_model *t)
{
    model_free(t->model);
    gguf_writer_free(&t->file);
}

/* Neurons of numbers that are all different; layer 0 has everything, the last only what it must have. */
struct tiny_neurons {
    struct neurons n;
    struct neuron_layer layers[TINY_LAYERS];
    float fired[TINY_FF], strength[TINY_FF], weight[TINY_FF], bound[TINY_FF];
    uint8_t fc1[TINY_RANK * TINY_D * 34 / 32]; /* Q8_0 */
    uint16_t fc2[TINY_FF * TINY_RANK];         /* F16 */
};

static inline struct predictor_quality tiny_quality(float q)
{
    return (struct predictor_quality){.recall = q, .precision = q / 2, .accuracy = q / 4, .flagged = q / 8};
}

static inline void tiny_neurons_make(struct tiny_neurons *t, const struct model *m)
{
    *t = (struct tiny_neurons){.n = {.activation = ACT_RELU, .n_layers = TINY_LAYERS, .d_model = TINY_D,
                                     .d_ff = TINY_FF, .n_tokens = 12345, .skip_share = 0.5f, .perplexity_dense = 21.5f,
                                     .perplexity_planes = 22.25f, .text = "licences.txt"}};
    t->n.layers = t->layers;
    t->n.model_hash = m ? gguf_hash(m->file) : 1;
    t->n.model_bytes = m ? gguf_file_bytes(m->file) : 1;
    for (int i = 0; i < TINY_FF; i++) {
        t->fired[i] = (float)i / TINY_FF;
        t->strength[i] = (float)(i * i);
        t->weight[i] = 1.f / (float)(i + 1);
        t->bound[i] = (float)(i - 40) * 0.125f;
    }
    for (size_t i = 0; i < sizeof t->fc1; i++)
        t->fc1[i] = (uint8_t)(i % 61);
    for (int i = 0; i < TINY_FF * TINY_RANK; i++)
        t->fc2[i] = (uint16_t)(i % 1000);
    t->layers[0] = (struct neuron_layer){.fired = t->fired, .strength = t->strength, .live = 0.25f, .weight = t->weight,
                                         .skip = {.1f, .2f, .3f, .4f, .5f, .6f, .7f, .8f, .9f}, .bound = t->bound,
                                         .planes = tiny_quality(0.96f), .mlp_threshold = -0.75f,
                                         .mlp = tiny_quality(0.5f)};
    t->layers[0].fc1 = (struct matrix){DT_Q8_0, TINY_RANK, TINY_D, t->fc1, NULL};
    t->layers[0].fc2 = (struct matrix){DT_F16, TINY_FF, TINY_RANK, (const uint8_t *)t->fc2, NULL};
    t->layers[1] = (struct neuron_layer){.fired = t->fired, .strength = t->strength, .live = 1};
}

/* Makes every layer able to do everything. */
static inline void tiny_neurons_fill(struct tiny_neurons *t)
{
    for (int i = 1; i < TINY_LAYERS; i++)
        t->layers[i] = t->layers[0];
}

/* Makes them those of a model with experts: a dense layer, then one of experts that get hotter, and shared neurons. */
static inline void tiny_neurons_make_experts(struct tiny_neurons *t)
{
    static const float chosen[TINY_EXPERTS] = {0.25f, 0.5f, 0.75f};
    tiny_neurons_fill(t);
    for (int i = 0; i < TINY_LAYERS; i++)
        t->layers[i].fc1 = t->layers[i].fc2 = (struct matrix){0};
    t->layers[1].chosen = chosen;
    t->n.experts.n = TINY_EXPERTS;
    t->n.experts.used = 2;
    t->n.experts.width = t->n.experts.shared = TINY_FF / (TINY_EXPERTS + 1);
    t->n.experts.dense_layers = 1;
    t->n.experts.dense = TINY_DENSE;
}

/* Writes the checksum anew after a change. */
static inline void tiny_seal(uint8_t *bytes, size_t n)
{
    uint64_t sum = neurons_checksum(bytes, n);
    for (int i = 0; i < 8; i++)
        bytes[NEURONS_CHECKSUM_AT + i] = (uint8_t)(sum >> (8 * i));
}

#endif
