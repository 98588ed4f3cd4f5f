/* Writes small models of random weights in whatever types and shape a test wants: the recorded tiny models have too few
 * neurons to be cut over several ranks. */
#ifndef HEARTH_TESTS_MADE_MODEL_H
#define HEARTH_TESTS_MADE_MODEL_H

#include <math.h>
#include <unistd.h>

#include "kernels/kernels.h"
#include "tests/engine/engine.h"
#include "tests/unit/gguf_writer.h"

struct made_model {
    uint32_t layers, d_model, d_ff, heads, kv_heads, head_dim, window;
    enum dtype attention, gate, up, down, output;
};

enum { MADE_VOCABULARY = 300, MADE_NAME = 64 };

/* Six units of neurons, the last one short; x is sent quantised. */
static const struct made_model made_quantised = {4, 64, 672, 4, 2, 16, 0, DT_Q8_0, DT_Q4_0, DT_Q8_0, DT_Q4_1, DT_Q4_0};
/* x is sent as floats, for gate needs it so, and quantised by the owner for up. */
static const struct made_model made_mixed = {3, 96, 640, 3, 1, 32, 24, DT_F16, DT_F32, DT_Q5_0, DT_F16, DT_BF16};
/* Three KV heads, each shared by two: never as many for each of two or four ranks. */
static const struct made_model made_three = {3, 192, 384, 6, 3, 32, 0, DT_Q5_1, DT_Q4_0, DT_Q4_0, DT_Q8_0, DT_Q4_0};
/* KV heads of 128 columns of a K type: two must stay together. */
static const struct made_model made_pairs = {2, 256, 256, 4, 4, 128, 0, DT_Q6_K, DT_Q4_0, DT_Q4_0, DT_Q4_0, DT_Q8_0};
/* Four units of 256. */
static const struct made_model made_k = {3, 256, 1024, 4, 1, 64, 0, DT_Q4_K, DT_Q3_K, DT_Q5_K, DT_Q6_K, DT_Q2_K};

static inline uint64_t made_draw(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u; /* SplitMix64 */
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* About normal, deviation 1. */
static inline float made_normal(uint64_t *state)
{
    double sum = 0;
    for (int i = 0; i < 12; i++)
        sum += (double)(made_draw(state) >> 11) * 0x1p-53;
    return (float)(sum - 6);
}

/* Where a quantised block keeps its f16 factors, the deviation of its random codes, and what takes their mean away. */
struct made_block {
    int scale_at, minimum_at; /* -1: none */
    double deviation, mean;
};

static inline struct made_block made_block_of(enum dtype type)
{
    switch (type) {
    case DT_Q4_0: return (struct made_block){0, -1, 4.6, 0};
    case DT_Q4_1: return (struct made_block){0, 2, 4.6, -7.5};
    case DT_Q5_0: return (struct made_block){0, -1, 9.2, 0};
    case DT_Q5_1: return (struct made_block){0, 2, 9.2, -15.5};
    case DT_Q8_0: return (struct made_block){0, -1, 74, 0};
    case DT_Q2_K: return (struct made_block){80, 82, 16, 1.5};
    case DT_Q3_K: return (struct made_block){108, -1, 42, 0};
    case DT_Q4_K: return (struct made_block){0, 2, 240, 7.5};
    case DT_Q5_K: return (struct made_block){0, 2, 480, 15.5};
    case DT_IQ4_NL: return (struct made_block){0, -1, 67, 0};
    case DT_IQ4_XS: return (struct made_block){0, -1, 1240, 0};
    case DT_MXFP4: return (struct made_block){-1, -1, 5.9, 0}; /* an exponent instead */
    default: return (struct made_block){208, -1, 1400, 0}; /* Q6_K */
    }
}

static inline void made_half(uint8_t *at, float value)
{
    static const struct kernels *scalar; /* looked up once: a virtual machine takes long to say what it is */
    uint16_t half;
    if (!scalar)
        scalar = kernels_available(0);
    scalar->to_f16(&value, 1, &half);
    memcpy(at, &half, sizeof half);
}

/* Weights [rows, cols] of deviation gain / sqrt(cols); the caller frees. */
static inline uint8_t *made_weights(enum dtype type, uint32_t rows, uint32_t cols, double gain, uint64_t *state)
{
    size_t bytes = dtype_row_bytes(type, cols) * rows, block = (size_t)dtype_block_bytes(type);
    double deviation = gain / sqrt(cols);
    struct made_block b = made_block_of(type);
    uint8_t *out = malloc(bytes);
    assert_non_null(out);
    if (type == DT_F32 || type == DT_F16 || type == DT_BF16) {
        for (uint8_t *at = out; at < out + bytes; at += block) {
            float value = (float)deviation * made_normal(state);
            if (type == DT_F16)
                made_half(at, value);
            else /* little-endian: BF16 is the upper half of F32 */
                memcpy(at, (uint8_t *)&value + (4 - block), block);
        }
        return out;
    }
    for (size_t i = 0; i < bytes; i++)
        out[i] = (uint8_t)made_draw(state);
    for (uint8_t *at = out; at < out + bytes; at += block) {
        double scale = deviation / b.deviation * (0.7 + 0.6 * (double)(made_draw(state) >> 11) * 0x1p-53);
        if (b.scale_at >= 0)
            made_half(at + b.scale_at, (float)scale);
        else
            at[0] = (uint8_t)(128 + lrint(log2(scale)));
        if (b.minimum_at >= 0)
            made_half(at + b.minimum_at, (float)(scale * b.mean));
    }
    return out;
}

/* A file being written; data is kept until its end. */
struct made_file {
    struct gguf_writer w;
    uint8_t *data[GGUF_WRITER_TENSORS];
    size_t n;
    uint64_t state;
};

static inline void made_matrix(struct made_file *f, const char *name, enum dtype type, uint32_t rows, uint32_t cols,
                               double gain)
{
    f->data[f->n] = made_weights(type, rows, cols, gain, &f->state);
    gguf_add_tensor(&f->w, name, type, 2, (const int64_t[]){cols, rows}, f->data[f->n++]);
}

static inline void made_norm(struct made_file *f, const char *name, uint32_t n)
{
    float *x = malloc(n * sizeof *x);
    assert_non_null(x);
    for (uint32_t i = 0; i < n; i++)
        x[i] = 1 + 0.2f * made_normal(&f->state);
    f->data[f->n] = (uint8_t *)x;
    gguf_add_tensor(&f->w, name, DT_F32, 1, (const int64_t[]){n}, f->data[f->n++]);
}

static inline void made_tokens(struct gguf_writer *w)
{
    gguf_key_string(w, "tokenizer.ggml.model", "llama");
    gguf_key_array(w, "tokenizer.ggml.tokens", GGUF_STRING, MADE_VOCABULARY);
    for (int i = 0; i < MADE_VOCABULARY; i++) {
        char name[16];
        snprintf(name, sizeof name, i >= 3 && i < 259 ? "<0x%02X>" : "word%d", i >= 3 && i < 259 ? i - 3 : i);
        gguf_put_string(w, i == 0 ? "<unk>" : i == 1 ? "<s>" : i == 2 ? "</s>" : name);
    }
    gguf_key_array(w, "tokenizer.ggml.scores", GGUF_F32, MADE_VOCABULARY);
    for (int i = 0; i < MADE_VOCABULARY; i++)
        gguf_put_f32(w, (float)-i);
    gguf_key_array(w, "tokenizer.ggml.token_type", GGUF_I32, MADE_VOCABULARY);
    for (int i = 0; i < MADE_VOCABULARY; i++)
        gguf_put_uint(w, i == 0 ? 2 : i < 3 ? 3 : i < 259 ? 6 : 1, 4);
}

static inline void made_keys(struct gguf_writer *w, const struct made_model *m)
{
    gguf_key_string(w, "general.architecture", "llama");
    gguf_key_u32(w, "llama.block_count", m->layers);
    gguf_key_u32(w, "llama.context_length", 512);
    gguf_key_u32(w, "llama.embedding_length", m->d_model);
    gguf_key_u32(w, "llama.feed_forward_length", m->d_ff);
    gguf_key_u32(w, "llama.attention.head_count", m->heads);
    gguf_key_u32(w, "llama.attention.head_count_kv", m->kv_heads);
    gguf_key_u32(w, "llama.attention.key_length", m->head_dim);
    gguf_key_u32(w, "llama.attention.value_length", m->head_dim);
    gguf_key_f32(w, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    if (m->window)
        gguf_key_u32(w, "llama.attention.sliding_window", m->window);
    made_tokens(w);
}

static inline void made_layer(struct made_file *f, const struct made_model *m, uint32_t layer)
{
    const struct {
        const char *name;
        enum dtype type; /* of matrices */
        uint32_t rows, cols; /* rows 0: a norm */
        double gain;
    } parts[] = {
        {"attn_norm", DT_F32, 0, m->d_model, 0},
        {"attn_q", m->attention, m->heads * m->head_dim, m->d_model, 1.2},
        {"attn_k", m->attention, m->kv_heads * m->head_dim, m->d_model, 1.2},
        {"attn_v", m->attention, m->kv_heads * m->head_dim, m->d_model, 1},
        {"attn_output", m->attention, m->d_model, m->heads * m->head_dim, 1.2},
        {"ffn_norm", DT_F32, 0, m->d_model, 0},
        {"ffn_gate", m->gate, m->d_ff, m->d_model, 1.5},
        {"ffn_up", m->up, m->d_ff, m->d_model, 1},
        {"ffn_down", m->down, m->d_model, m->d_ff, 1.2},
    };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        char name[64];
        snprintf(name, sizeof name, "blk.%u.%s.weight", layer, parts[i].name);
        if (parts[i].rows)
            made_matrix(f, name, parts[i].type, parts[i].rows, parts[i].cols, parts[i].gain);
        else
            made_norm(f, name, parts[i].cols);
    }
}

/* A temporary file of this text or these bytes; the caller removes it. */
static inline void made_file_of(const void *bytes, size_t n, char path[MADE_NAME])
{
    snprintf(path, MADE_NAME, "/tmp/hearth-engine-XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_true(write(fd, bytes, n) == (ssize_t)n);
    assert_int_equal(close(fd), 0);
}

/* The model as a temporary file. */
static inline void made_model_write(const struct made_model *m, char path[MADE_NAME])
{
    struct made_file f = {.state = 7};
    gguf_writer_begin(&f.w, "GGUF", 3);
    made_keys(&f.w, m);
    made_matrix(&f, "token_embd.weight", m->output, MADE_VOCABULARY, m->d_model, 3);
    for (uint32_t layer = 0; layer < m->layers; layer++)
        made_layer(&f, m, layer);
    made_norm(&f, "output_norm.weight", m->d_model);
    made_matrix(&f, "output.weight", m->output, MADE_VOCABULARY, m->d_model, 3);
    gguf_writer_end(&f.w);
    made_file_of(f.w.bytes, f.w.n, path);
    gguf_writer_free(&f.w);
    for (size_t i = 0; i < f.n; i++)
        free(f.data[i]);
}

#endif
