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

static void put_net_keys(struct architecture_keys *k, const struct shape *s)
{
    arch_u32(k, "expert_shared_feed_forward_length", s->d_ff);
    arch_u32(k, "full_attention_interval", NET_INTERVAL);
    arch_u32(k, "ssm.conv_kernel", NET_TAPS);
    arch_u32(k, "ssm.group_count", NET_KEY_HEADS);
    arch_u32(k, "ssm.time_step_rank", NET_VALUE_HEADS);
    arch_u32(k, "ssm.state_size", NET_SIZE);
    arch_u32(k, "ssm.inner_size", NET_VALUE_HEADS * NET_SIZE);
}

/* Experts, and what gpt-oss has besides: windows, and rotations stretched by YaRN. */
static void put_expert_keys(struct architecture_keys *k, const struct shape *s)
{
    char full[96];
    arch_u32(k, "attention.key_length", s->head_dim);
    arch_u32(k, "attention.value_length", s->head_dim);
    arch_u32(k, "expert_count", s->experts);
    arch_u32(k, "expert_used_count", s->experts_used);
    arch_u32(k, "expert_feed_forward_length", s->d_ff);
    if (s->architecture == QWEN3NEXT)
        put_net_keys(k, s);
    if (s->architecture != GPT_OSS)
        return;
    arch_u32(k, "attention.sliding_window", 128);
    key_string(k->out, full_key(k, "rope.scaling.type", full), "yarn");
    arch_f32(k, "rope.scaling.factor", 32);
    arch_u32(k, "rope.scaling.original_context_length", 4096);
}

static const char *architecture_of(const struct shape *s)
{
    static const char *const names[] = {
        [LLAMA] = "llama", [OPT] = "opt", [QWEN3MOE] = "qwen3moe", [GPT_OSS] = "gpt-oss",
        [QWEN3NEXT] = "qwen3next"};
    return names[s->architecture];
}

static void put_keys(struct output *o, const struct synth_options *opt)
{
    const struct shape *s = opt->shape;
    const bool qwen = s->architecture == QWEN3MOE || s->architecture == QWEN3NEXT;
    struct architecture_keys k = {.out = o, .architecture = architecture_of(s)};
    char name[128];
    describe(opt, name, sizeof name);
    key_string(o, "general.architecture", k.architecture);
    key_string(o, "general.name", name);
    key_u32(o, "general.file_type", opt->type->file_type);
    key_u32(o, "general.quantization_version", 2);
    arch_u32(&k, "block_count", opt->layers);
    arch_u32(&k, "context_length", s->context);
    arch_u32(&k, "embedding_length", s->d_model);
    arch_u32(&k, "feed_forward_length", qwen ? s->experts_used * s->d_ff : s->d_ff);
    arch_u32(&k, "attention.head_count", s->heads);
    if (s->architecture == OPT) {
        arch_f32(&k, "attention.layer_norm_epsilon", 1e-5f);
    } else {
        arch_u32(&k, "attention.head_count_kv", s->kv_heads);
        arch_f32(&k, "attention.layer_norm_rms_epsilon", 1e-5f);
        arch_u32(&k, "rope.dimension_count", s->architecture == QWEN3NEXT ? NET_TURNED : s->head_dim);
        arch_f32(&k, "rope.freq_base", s->rope_base);
    }
    if (s->experts)
        put_expert_keys(&k, s);
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
    for (int64_t i = 0; i < t->cols * t->rows; i++) {
        float v = 0;
        switch (t->content) {
        case LEVELS: v = i < constant_columns(j->opt->shape) ? t->first : t->rest; break;
        case NOISE: v = 0.01f * draw_normal(&r); break;
        case ROUTER: v = t->deviation * draw_normal(&r); break;
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
            block_fill(maker, &r, scales, j->chunk + at);
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
                block_fill(maker, &r, scales, j->chunk + i);
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

static void put_tensor_info(struct job *j, const struct tensor *t)
{
    struct output *o = &j->out;
    const int64_t slabs = t->slabs ? t->slabs : 1;
    put_string(o, t->name);
    put_u32(o, t->slabs ? 3 : t->rows > 1 ? 2 : 1);
    put_u64(o, (uint64_t)t->cols);
    if (t->rows > 1)
        put_u64(o, (uint64_t)(t->rows / slabs));
    if (t->slabs)
        put_u64(o, (uint64_t)t->slabs);
    put_u32(o, t->type);
    put_u64(o, j->total);
    j->total += output_aligned(t->bytes);
}

static void put_header(struct job *j)
{
    struct output *o = &j->out, dry = {.path = o->path};
    put_keys(&dry, j->opt);
    put(o, "GGUF", 4);
    put_u32(o, 3);
    put_u64(o, (uint64_t)j->n_tensors);
    put_u64(o, dry.n_keys);
    put_keys(o, j->opt);
    for (int i = 0; i < j->n_tensors; i++)
        put_tensor_info(j, &j->tensors[i]);
    put_padding(o);
}

/* What weights would take, of which nothing is written: a hole in the file. */
static void put_hole(struct job *j)
{
    struct output *o = &j->out;
    o->at += j->total;
    if (!o->failed && (fflush(o->file) != 0 || ftruncate(fileno(o->file), (off_t)o->at) != 0)) {
        log_error("%s: cannot make it %llu bytes long: %s", o->path, (unsigned long long)o->at, strerror(errno));
        o->failed = true;
    }
}

static void put_weights(struct job *j, struct synth_file *file)
{
    struct output *o = &j->out;
    struct random seeds = {j->opt->seed}; /* a seed per tensor: its weights do not depend on those before it */
    for (int i = 0; i < j->n_tensors && !o->failed; i++) {
        const struct tensor *t = &j->tensors[i];
        if (t->ffn_norm && file->norms)
            file->norms[t->layer] = (struct norm_place){o->at, t->first};
        put_tensor(j, t, draw(&seeds));
    }
    show_progress(j, j->done);
}

/* Rows are whole blocks. */
static status check_blocks(const struct job *j)
{
    for (int i = 0; i < j->n_tensors; i++) {
        const struct tensor *t = &j->tensors[i];
        if (t->cols % dtype_block(t->type) == 0)
            continue;
        log_error("%s: rows of %lld (%s of shape %s) are no whole blocks of %s, which has %d: take another --type",
                  j->opt->path, (long long)t->cols, t->name, j->opt->shape->name, dtype_name(t->type),
                  dtype_block(t->type));
        return ST_USAGE;
    }
    return ST_OK;
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
    st = check_blocks(&j);
    if (st == ST_OK)
        st = open_output(&j.out);
    if (st != ST_OK)
        goto out;
    put_header(&j);
    if (opt->header_only)
        put_hole(&j);
    else
        put_weights(&j, &file);
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
