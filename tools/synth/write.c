/* Writing the file: keys, the list of tensors, their data. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/log.h"
#include "tools/synth/blocks.h"
#include "tools/synth/output.h"
#include "tools/synth/tensors.h"

enum { CHUNK_BYTES = 1 << 20 /* tensor data are made and written in pieces of at most this size */ };

struct job {
    const struct synth_options *opt;
    struct output out;
    struct tensor *tensors;
    int n_tensors;
    uint8_t *chunk;        /* [CHUNK_BYTES] */
    float *bias;           /* [d_ff] of the layer `bias_layer`, in units of `deviation` */
    float *deviation;      /* [d_ff] of the random part of the rows that were written last */
    int bias_layer;
    uint64_t done, total;  /* bytes of tensor data */
    int percent;
    bool terminal;
};

/* ---- keys ---- */

static void describe(const struct synth_options *opt, char *name, size_t n)
{
    int at = snprintf(name, n, "random weights, %s shape, %u layers", opt->shape->name, opt->layers);
    if (is_sparse(opt))
        snprintf(name + at, n - (size_t)at, ", %s, live %g, skew %g", ffn_name(opt->ffn), (double)opt->live,
                 (double)opt->skew);
}

struct architecture_keys {
    struct output *out;
    const char *architecture;
    int n;
};

static const char *full_key(const struct architecture_keys *k, const char *name, char out[96])
{
    snprintf(out, 96, "%s.%s", k->architecture, name);
    return out;
}

static void arch_u32(struct architecture_keys *k, const char *name, uint32_t v)
{
    char full[96];
    key_u32(k->out, full_key(k, name, full), v);
}

static void arch_f32(struct architecture_keys *k, const char *name, float v)
{
    char full[96];
    key_f32(k->out, full_key(k, name, full), v);
}

static uint64_t n_keys(const struct shape *s)
{
    return (s->opt ? 10 : 13) + N_TOKENIZER_KEYS;
}

static void put_keys(struct output *o, const struct synth_options *opt)
{
    const struct shape *s = opt->shape;
    struct architecture_keys k = {.out = o, .architecture = s->opt ? "opt" : "llama"};
    char name[128];
    describe(opt, name, sizeof name);
    key_string(o, "general.architecture", k.architecture);
    key_string(o, "general.name", name);
    key_u32(o, "general.file_type", opt->type->file_type);
    key_u32(o, "general.quantization_version", 2);
    arch_u32(&k, "block_count", opt->layers);
    arch_u32(&k, "context_length", s->context);
    arch_u32(&k, "embedding_length", s->d_model);
    arch_u32(&k, "feed_forward_length", s->d_ff);
    arch_u32(&k, "attention.head_count", s->heads);
    if (s->opt) {
        arch_f32(&k, "attention.layer_norm_epsilon", 1e-5f);
    } else {
        arch_u32(&k, "attention.head_count_kv", s->kv_heads);
        arch_f32(&k, "attention.layer_norm_rms_epsilon", 1e-5f);
        arch_u32(&k, "rope.dimension_count", s->head_dim);
        arch_f32(&k, "rope.freq_base", s->rope_base);
    }
    put_tokenizer(o, s->vocab);
}

/* ---- data ---- */

static void show_progress(struct job *j, uint64_t done)
{
    enum { WIDTH = 40 };
    int percent = (int)(done * 100 / j->total);
    if (!j->terminal || percent == j->percent)
        return;
    j->percent = percent;
    static const char full[WIDTH + 1] = "########################################";
    fprintf(stderr, "\r[%-*.*s] %3d %%%s", WIDTH, percent * WIDTH / 100, full, percent, percent == 100 ? "\n" : "");
}

/* Llama 3's divisor of rotation frequency i: 1 for wavelengths under a quarter of the original context of 8192, the
 * factor for those beyond it, a smooth step between. */
static float rope_divisor(const struct shape *s, int64_t i)
{
    const double old_context = 8192, low = 1, high = 4;
    double wavelength = 2 * M_PI * pow(s->rope_base, 2.0 * (double)i / s->head_dim);
    if (wavelength < old_context / high)
        return 1;
    if (wavelength > old_context / low)
        return s->rope_factor;
    double smooth = (old_context / wavelength - low) / (high - low);
    return (float)(1 / ((1 - smooth) / s->rope_factor + smooth));
}

static void put_vector(struct job *j, const struct tensor *t, uint64_t seed)
{
    struct random r = {seed};
    for (int64_t i = 0; i < t->cols; i++) {
        float v = 0;
        switch (t->content) {
        case LEVELS: v = i < constant_columns(j->opt->shape) ? t->first : t->rest; break;
        case NOISE: v = 0.01f * draw_normal(&r); break;
        case UP_BIAS: v = j->bias[i] * j->deviation[i]; break;
        default: v = rope_divisor(j->opt->shape, i);
        }
        put_f32(&j->out, v);
    }
}

/* The head of an embedding's row: the constant columns, then as the rest of the row. */
static void embedding_head(const struct job *j, struct random *r, float *w)
{
    for (int64_t i = 0; i < HEAD; i++)
        w[i] = i < constant_columns(j->opt->shape) ? 1 : draw_normal(r);
}

/* The deviation of a deciding row's weights outside the deciding columns, for a gate of deviation 1. */
static float idle_deviation(const struct shape *s)
{
    return sqrtf((1 - DECIDING_SHARE) / (float)(s->d_model - constant_columns(s) - DECIDING));
}

/* The head of a deciding row; the columns after it have the idle deviation. The bias is in units of the deviation that
 * the row really has. */
static void deciding_head(struct job *j, const struct block_maker *maker, struct random *r, int64_t row, float *w,
                          uint8_t *blocks)
{
    const struct shape *s = j->opt->shape;
    const int64_t first = constant_columns(s);
    const float idle = idle_deviation(s), deciding = sqrtf(DECIDING_SHARE / DECIDING);
    for (int64_t i = 0; i < HEAD; i++)
        w[i] = i < first ? 0 : (i >= GROUP && i < GROUP + DECIDING ? deciding : idle) * draw_normal(r);
    maker->encode(w, blocks); /* to know what it says; the bias changes nothing of it but, in a K type, the scales */
    double square = (double)idle * idle * (double)(s->d_model - HEAD);
    for (int64_t i = first; i < HEAD; i++)
        square += (double)w[i] * w[i];
    j->deviation[row] = (float)sqrt(square);
    for (int64_t i = 0; i < first; i++)
        w[i] = j->bias[row] * j->deviation[row] / (float)first;
    maker->encode(w, blocks);
}

/* Rows whose first HEAD weights are chosen and whose others are drawn. */
static void put_headed_rows(struct job *j, const struct tensor *t, uint64_t seed)
{
    const struct block_maker *maker = block_maker_of(t->type);
    const size_t block_bytes = (size_t)dtype_block_bytes(t->type);
    const size_t head_bytes = (size_t)dtype_row_bytes(t->type, HEAD);
    const size_t row_bytes = (size_t)dtype_row_bytes(t->type, t->cols);
    const bool deciding = t->content == DECIDING_ROWS;
    uint16_t scales[N_SCALES];
    float w[HEAD];
    struct random r = {seed};
    block_scales(maker, deciding ? idle_deviation(j->opt->shape) / SCALES_RMS : t->deviation, scales);
    for (int64_t row = 0; row < t->rows && !j->out.failed; row++) {
        if (deciding) {
            deciding_head(j, maker, &r, row, w, j->chunk);
        } else {
            embedding_head(j, &r, w);
            maker->encode(w, j->chunk);
        }
        for (size_t at = head_bytes; at < row_bytes; at += block_bytes)
            maker->fill(&r, scales, j->chunk + at);
        put(&j->out, j->chunk, row_bytes);
        show_progress(j, j->done + (uint64_t)(row + 1) * row_bytes);
    }
}

static void put_blocks(struct job *j, const struct tensor *t, uint64_t seed)
{
    const struct block_maker *maker = block_maker_of(t->type);
    uint16_t scales[N_SCALES];
    block_scales(maker, t->deviation, scales);
    const size_t block_bytes = (size_t)dtype_block_bytes(t->type);
    const size_t chunk_bytes = CHUNK_BYTES / block_bytes * block_bytes;
    const uint64_t zero_bytes = (uint64_t)t->zero_rows * dtype_row_bytes(t->type, t->cols);
    struct random r = {seed};
    for (uint64_t at = 0; at < t->bytes && !j->out.failed;) {
        size_t n = t->bytes - at < chunk_bytes ? (size_t)(t->bytes - at) : chunk_bytes;
        for (size_t i = 0; i < n; i += block_bytes) {
            if (at + i < zero_bytes)
                memset(j->chunk + i, 0, block_bytes);
            else
                maker->fill(&r, scales, j->chunk + i);
        }
        put(&j->out, j->chunk, n);
        at += n;
        show_progress(j, j->done + at);
    }
}

static void put_tensor(struct job *j, const struct tensor *t, uint64_t seed)
{
    if (is_sparse(j->opt) && t->layer >= 0 && t->layer != j->bias_layer) {
        layer_biases(j->opt, t->layer, j->bias);
        j->bias_layer = t->layer;
    }
    if (t->type == DT_F32)
        put_vector(j, t, seed);
    else if (t->content == RANDOM)
        put_blocks(j, t, seed);
    else
        put_headed_rows(j, t, seed);
    put_padding(&j->out);
    j->done += output_aligned(t->bytes);
}

/* ---- the file ---- */

static void put_model(struct job *j, struct synth_file *file)
{
    struct output *o = &j->out;
    put(o, "GGUF", 4);
    put_u32(o, 3);
    put_u64(o, (uint64_t)j->n_tensors);
    put_u64(o, n_keys(j->opt->shape));
    put_keys(o, j->opt);
    for (int i = 0; i < j->n_tensors; i++) {
        const struct tensor *t = &j->tensors[i];
        put_string(o, t->name);
        put_u32(o, t->rows > 1 ? 2 : 1);
        put_u64(o, (uint64_t)t->cols);
        if (t->rows > 1)
            put_u64(o, (uint64_t)t->rows);
        put_u32(o, t->type);
        put_u64(o, j->total);
        j->total += output_aligned(t->bytes);
    }
    put_padding(o);
    struct random seeds = {j->opt->seed}; /* a seed per tensor: its weights do not depend on those before it */
    for (int i = 0; i < j->n_tensors && !o->failed; i++) {
        const struct tensor *t = &j->tensors[i];
        if (t->ffn_norm && file->norms)
            file->norms[t->layer] = (struct norm_place){o->at, t->first};
        put_tensor(j, t, draw(&seeds));
    }
    show_progress(j, j->done);
}

static status open_output(struct output *o)
{
    o->file = fopen(o->path, "wb");
    if (o->file)
        return ST_OK;
    log_error("%s: cannot create: %s", o->path, strerror(errno));
    return ST_IO;
}

static status close_output(struct output *o)
{
    struct stat info;
    const bool regular = fstat(fileno(o->file), &info) == 0 && S_ISREG(info.st_mode);
    if (fclose(o->file) != 0 && !o->failed) {
        log_error("%s: cannot write: %s", o->path, strerror(errno));
        o->failed = true;
    }
    if (o->failed && regular)
        unlink(o->path); /* half a model is of no use */
    return o->failed ? ST_IO : ST_OK;
}

status synth_write(const struct synth_options *opt, struct synth_file *out)
{
    struct job j = {.opt = opt, .out = {.path = opt->path}, .bias_layer = -1, .percent = -1,
                    .terminal = isatty(STDERR_FILENO)};
    struct synth_file file = {0};
    status st = ST_NOMEM;
    j.tensors = list_tensors(opt, &j.n_tensors);
    j.chunk = malloc(CHUNK_BYTES);
    j.bias = malloc(opt->shape->d_ff * sizeof *j.bias);
    j.deviation = malloc(opt->shape->d_ff * sizeof *j.deviation);
    file.norms = is_sparse(opt) ? calloc(opt->layers, sizeof *file.norms) : NULL;
    if (!j.tensors || !j.chunk || !j.bias || !j.deviation || (is_sparse(opt) && !file.norms)) {
        log_error("%s: out of memory for the list of its tensors", opt->path);
        goto out;
    }
    st = open_output(&j.out);
    if (st != ST_OK)
        goto out;
    put_model(&j, &file);
    st = close_output(&j.out);
    if (st != ST_OK)
        goto out;
    file.bytes = j.out.at;
    *out = file;
    file.norms = NULL;
out:
    free(file.norms);
    free(j.deviation);
    free(j.bias);
    free(j.chunk);
    free(j.tensors);
    return st;
}
