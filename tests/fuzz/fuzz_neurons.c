/* Any bytes as a neuron file, or as PowerInfer's split file if they begin with PWRI: read, touch everything.
 *
 *     mkdir corpus && fuzz_neurons -runs=1000000 -max_len=16384 corpus
 *
 * A neuron file's first bytes and its checksum are put right first, so that mutations reach what lies behind them. An
 * empty corpus folder is filled with small valid files. */
#include <dirent.h>
#include <stdio.h>

#include "base/log.h"
#include "sparsity/gpuidx.h"
#include "sparsity/mode.h"
#include "sparsity/fit/neurons_save.h"
#include "sparsity/neurons.h"
#include "sparsity/neurons_file.h"
#include "tests/unit/gguf_walk.h"
#include "tests/unit/neuron_fixture.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);
int LLVMFuzzerInitialize(int *argc, char ***argv);

static volatile uint64_t sink; /* keeps the reads alive */
static struct tiny_model tiny; /* what the seeds were made for */

static void touch_matrix(const struct matrix *m)
{
    if (m->data)
        sink += m->data[0] + m->data[(size_t)m->rows * dtype_row_bytes(m->type, m->cols) - 1] + strlen(m->name);
}

static void touch_array(const float *v, int64_t n)
{
    for (int64_t i = 0; v && i < n; i++)
        sink += v[i] > 0.5f;
}

static void touch_neurons(const struct neurons *n)
{
    for (int i = 0; i < n->n_layers; i++) {
        const struct neuron_layer *l = &n->layers[i];
        const int64_t neurons = neurons_of_layer(n, i);
        touch_array(l->fired, neurons);
        touch_array(l->strength, neurons);
        touch_array(l->weight, neurons);
        touch_array(l->bound, neurons);
        touch_array(l->chosen, neurons_experts(n, i));
        sink += (uint64_t)neurons_expert_use(n, i).rare + (neurons_looked_at(n, i, neurons - 1) > 0);
        for (int64_t e = 0; e < neurons_experts(n, i); e++)
            sink += neurons_expert_live(n, i, e) > 0.5;
        touch_matrix(&l->fc1);
        touch_matrix(&l->fc2);
    }
    sink += strlen(n->text) + strlen(activation_name(n->activation)) + neurons_have_mlp(n);
}

static void read_neurons(uint8_t *bytes, size_t n)
{
    static const uint8_t magic[8] = {'G', 'G', 'U', 'F', 3};
    struct neurons *out;
    if (n >= NEURONS_CHECKSUM_AT + 8) {
        memcpy(bytes, magic, sizeof magic);
        memcpy(bytes + NEURONS_PREAMBLE_AT, neurons_preamble, NEURONS_PREAMBLE_BYTES);
        tiny_seal(bytes, n);
    }
    if (neurons_parse(bytes, n, "fuzz", NULL, &out) != ST_OK)
        return;
    touch_neurons(out);
    neurons_free(out);
    if (neurons_parse(bytes, n, "fuzz", tiny.model, &out) == ST_OK) {
        enum predictor predictor = PREDICTOR_AUTO;
        sink += sparse_mode_check(tiny.model, out, SPARSE_PREDICTED, &predictor) == ST_OK;
        neurons_free(out);
    }
}

static void read_gpuidx(const uint8_t *bytes, size_t n)
{
    struct gpuidx *out;
    if (gpuidx_parse(bytes, n, "fuzz", NULL, &out) != ST_OK)
        return;
    int64_t on = 0;
    for (int i = 0; i < out->n_layers; i++)
        for (int64_t j = 0; j < out->d_ff; j++)
            on += out->layers[i].on_gpu[j] - (j < out->layers[i].n_on_gpu);
    if (on != 0) /* what the reader counted is what is there */
        abort();
    sink += gguf_walk(out->file);
    gpuidx_free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct log_catcher caught;
    uint8_t *copy = malloc(n ? n : 1);
    if (!copy)
        return 0;
    memcpy(copy, bytes, n);
    log_catch(&caught);
    if (n >= 4 && !memcmp(bytes, "PWRI", 4))
        read_gpuidx(copy, n);
    else
        read_neurons(copy, n);
    log_catch(NULL);
    free(copy);
    return 0;
}

static void write_gpuidx_seed(const char *path)
{
    static const int32_t some[8] = {0, 1, 0, 0, 1, 1, 0, 0}, none[8], ids[3] = {1, 4, 5};
    struct gguf_writer w;
    gguf_writer_begin(&w, "PWRI", 3);
    gguf_key_string(&w, "general.architecture", "generic.gpu_index");
    gguf_key_u32(&w, "generic.gpu_index.block_count", 2);
    gguf_key_uint(&w, "split.vram_capacity", GGUF_U64, 1 << 20);
    gguf_add_tensor(&w, "blk.0.gpu_idx", DT_I32, 1, (int64_t[]){8}, some);
    gguf_add_tensor(&w, "blk.0.gpu_bucket", DT_I32, 1, (int64_t[]){3}, ids);
    gguf_add_tensor(&w, "blk.1.gpu_idx", DT_I32, 1, (int64_t[]){8}, none);
    gguf_add_tensor(&w, "blk.1.gpu_bucket", DT_I32, 1, (int64_t[]){0}, none);
    gguf_writer_end(&w);
    if (gguf_writer_save(&w, path) != 0)
        perror(path);
    gguf_writer_free(&w);
}

static void write_seeds(const char *folder)
{
    static struct tiny_neurons made;
    char path[512];
    tiny_neurons_make(&made, tiny.model);
    snprintf(path, sizeof path, "%s/part", folder);
    neurons_save(&made.n, path);
    tiny_neurons_fill(&made);
    snprintf(path, sizeof path, "%s/full", folder);
    neurons_save(&made.n, path);
    tiny_neurons_make_experts(&made);
    snprintf(path, sizeof path, "%s/experts", folder);
    neurons_save(&made.n, path);
    snprintf(path, sizeof path, "%s/gpuidx", folder);
    write_gpuidx_seed(path);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    tiny_model_open(&tiny, (struct tiny_recipe){.gate_type = DT_Q4_0, .up_type = DT_Q4_0});
    for (int i = 1; i < *argc; i++) {
        DIR *d = (*argv)[i][0] != '-' ? opendir((*argv)[i]) : NULL;
        if (!d)
            continue;
        int entries = 0;
        while (readdir(d))
            entries++;
        closedir(d);
        if (entries <= 2) /* . and .. */
            write_seeds((*argv)[i]);
        return 0;
    }
    return 0;
}
