/* Any bytes as a model file: open, touch everything, load as a model.
 *
 *     mkdir corpus && fuzz_gguf -runs=1000000 -max_len=8192 corpus
 *
 * An empty corpus folder is filled with small valid models first, so that mutations start behind the header's checks. */
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

static void touch_model(const struct model *m)
{
    touch(&m->embedding);
    touch(&m->out_norm);
    touch(&m->output);
    touch(&m->rope_factors);
    touch(&m->positions);
    touch(&m->out_norm_bias);
    for (int i = 0; i < m->hp.n_layers; i++) {
        const struct layer_weights *l = &m->layers[i];
        const struct matrix *all[] = {&l->attn_norm, &l->q, &l->k, &l->v, &l->q_bias, &l->k_bias, &l->v_bias, &l->q_norm,
                                      &l->k_norm, &l->o, &l->o_bias, &l->ffn_norm, &l->gate, &l->up, &l->down,
                                      &l->down_t, &l->attn_norm_bias, &l->ffn_norm_bias, &l->up_bias, &l->down_bias,
                                      &l->fc1, &l->fc2};
        for (size_t j = 0; j < sizeof all / sizeof *all; j++)
            touch(all[j]);
    }
    sink += (uint64_t)model_neuron_unit(m);
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

/* The tensors of the layer; names end with a blank. Fused projections have three times the rows. */
static const struct seed {
    const char *arch, *magic, *matrices, *vectors;
} seeds[] = {
    {"llama", "GGUF", "attn_q attn_k attn_v attn_output ffn_gate ffn_up ffn_down ",
     "attn_norm.weight ffn_norm.weight attn_q.bias attn_k.bias attn_v.bias "},
    {"llama", "PWRI", "attn_q attn_k attn_v attn_output ffn_gate ffn_up ffn_down_t fc1 fc2 ",
     "attn_norm.weight ffn_norm.weight "},
    {"qwen2", "GGUF", "attn_q attn_k attn_v attn_output ffn_gate ffn_up ffn_down ",
     "attn_norm.weight ffn_norm.weight attn_q.bias attn_k.bias attn_v.bias "},
    {"qwen3", "GGUF", "attn_q attn_k attn_v attn_output ffn_gate ffn_up ffn_down ",
     "attn_norm.weight ffn_norm.weight attn_q_norm.weight attn_k_norm.weight "},
    {"falcon", "GGUF", "attn_qkv attn_output ffn_up ffn_down ",
     "attn_norm.weight attn_norm.bias attn_norm_2.weight attn_norm_2.bias "},
    {"opt", "PWRI", "attn_q attn_k attn_v attn_output ffn_up ffn_down_t fc1 fc2 ",
     "attn_norm.weight attn_norm.bias ffn_norm.weight ffn_norm.bias attn_q.bias attn_k.bias attn_v.bias "
     "attn_output.bias ffn_up.bias ffn_down_t.bias "},
};

/* Tensors "blk.0.NAME" + suffix of the names. */
static void add_tensors(struct gguf_writer *w, const char *names, const char *suffix, uint32_t type, int n_dims)
{
    char name[64];
    for (const char *at = names, *end; (end = strchr(at, ' ')); at = end + 1) {
        snprintf(name, sizeof name, "blk.0.%.*s%s", (int)(end - at), at, suffix);
        gguf_add_tensor(w, name, type, n_dims, (int64_t[]){32, strstr(name, "qkv") ? 96 : 32}, NULL);
    }
}

/* A model of one layer, all dimensions 32 but for the vocabulary of 3. */
static void write_seed(const char *folder, const struct seed *s)
{
    const char *arch = s->arch;
    const bool layer_norm = !strcmp(arch, "falcon") || !strcmp(arch, "opt");
    static const char *const ints[] = {"embedding_length", "feed_forward_length", "context_length"};
    static const char *const tokens[] = {"a", "b", "ab"};
    struct gguf_writer w;
    char name[512];
    gguf_writer_begin(&w, s->magic, 3);
    gguf_key_string(&w, "general.architecture", arch);
    gguf_key_u32(&w, "general.alignment", 32);
    for (int i = 0; i < 3; i++) {
        snprintf(name, sizeof name, "%s.%s", arch, ints[i]);
        gguf_key_u32(&w, name, 32);
    }
    snprintf(name, sizeof name, "%s.block_count", arch);
    gguf_key_uint(&w, name, GGUF_U64, 1);
    snprintf(name, sizeof name, "%s.attention.head_count", arch);
    gguf_key_array(&w, name, GGUF_I32, 1);
    gguf_put_uint(&w, 1, 4);
    snprintf(name, sizeof name, "%s.attention.layer_norm%s_epsilon", arch, layer_norm ? "" : "_rms");
    gguf_key_f32(&w, name, 1e-5f);
    if (!strcmp(s->magic, "PWRI"))
        gguf_key_f32(&w, "powerinfer.sparse_threshold", 0.5f);
    gguf_key_strings(&w, "tokenizer.ggml.tokens", tokens, 3);
    gguf_key_uint(&w, "tokenizer.ggml.add_bos_token", GGUF_BOOL, 1);
    gguf_add_tensor(&w, "token_embd.weight", DT_Q8_0, 2, (int64_t[]){32, 3}, NULL);
    gguf_add_tensor(&w, "output_norm.weight", DT_F32, 1, (int64_t[]){32}, NULL);
    if (layer_norm)
        gguf_add_tensor(&w, "output_norm.bias", DT_F32, 1, (int64_t[]){32}, NULL);
    if (!strcmp(arch, "opt"))
        gguf_add_tensor(&w, "position_embd.weight", DT_F16, 2, (int64_t[]){32, 34}, NULL);
    add_tensors(&w, s->matrices, ".weight", DT_Q4_0, 2);
    add_tensors(&w, s->vectors, "", DT_F16, 1);
    gguf_writer_end(&w);
    snprintf(name, sizeof name, "%s/%s-%s", folder, arch, s->magic);
    if (gguf_writer_save(&w, name) != 0)
        perror(name);
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
