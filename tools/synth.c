/* hearth-synth: a GGUF model of random weights in the shape of a Llama model, for benchmarks.
 *
 * Speed does not depend on what weights say, only on their shape and type, so a benchmark needs no download. They are
 * drawn directly as quantised blocks: symmetric codes, and scales that give every matrix a standard deviation of about
 * 1/sqrt(columns), so that activations and logits stay of order one through any number of layers. */
#include <argp.h>
#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/bytes.h"
#include "base/dtype.h"
#include "base/log.h"
#include "base/status.h"
#include "model/gguf.h"

enum {
    ALIGNMENT = 32,          /* of tensor data, GGUF's default */
    CHUNK_BYTES = 1 << 20,   /* tensor data are made and written in pieces of at most this size */
    N_SCALES = 8,            /* block scales of a tensor, 1 to 1.44 times the smallest */
    N_BYTE_TOKENS = 256,
    N_SPECIAL_TOKENS = 3,    /* <unk>, <s>, </s> */
    WORD_MAX = 16,
};

struct shape {
    const char *name;
    uint32_t layers, d_model, d_ff, heads, kv_heads, head_dim, vocab, context;
    float rope_base;
    bool tied;         /* the output matrix is the embedding */
    float rope_factor; /* Llama 3's stretching of low frequencies, 0: none */
};

static const struct shape shapes[] = {
    {"1b", 16, 2048, 8192, 32, 8, 64, 128256, 131072, 500000, true, 32}, /* Llama 3.2 1B */
    {"7b", 32, 4096, 11008, 32, 32, 128, 32000, 4096, 10000, false, 0},  /* Llama 2 7B */
    {"70b", 80, 8192, 28672, 64, 8, 128, 32000, 4096, 10000, false, 0},  /* Llama 2 70B */
};

struct weight_type {
    const char *name;
    enum dtype body;   /* every matrix but the one that makes the logits */
    enum dtype output; /* that one: llama.cpp's K mixes keep it in Q6_K */
    uint32_t file_type; /* llama.cpp's general.file_type */
};

static const struct weight_type weight_types[] = {
    {"q4_0", DT_Q4_0, DT_Q4_0, 2},
    {"q8_0", DT_Q8_0, DT_Q8_0, 7},
    {"q4_k", DT_Q4_K, DT_Q6_K, 14},
};

struct options {
    const struct shape *shape;
    const struct weight_type *type;
    uint32_t layers; /* 0: the shape's own */
    uint64_t seed;
    const char *path;
};

/* ---- random numbers and blocks ---- */

struct random {
    uint64_t state;
};

/* SplitMix64 (Steele, Lea and Flood, 2014): one addition and two multiplications a draw. */
static inline uint64_t draw(struct random *r)
{
    uint64_t z = r->state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* Sixteen codes of 4 bits, 1 to 15, triangular around 8 (standard deviation 3.24): sums of two uniform 3-bit codes. */
static inline uint64_t draw_nibbles(struct random *r)
{
    const uint64_t low3 = 0x7777777777777777u;
    return (draw(r) & low3) + (draw(r) & low3) + 0x1111111111111111u;
}

/* Eight signed codes of 8 bits, -127 to 127, triangular around 0 (standard deviation 52.3). */
static inline uint64_t draw_bytes(struct random *r)
{
    const uint64_t low7 = 0x7f7f7f7f7f7f7f7fu;
    uint64_t sum = (draw(r) & low7) + (draw(r) & low7); /* 0 to 254 a byte: no carry */
    uint64_t out = 0;
    for (int i = 0; i < 64; i += 8)
        out |= (uint64_t)(uint8_t)((sum >> i) - 127) << i;
    return out;
}

/* A positive normal number below 65504 as IEEE half. */
static uint16_t f16_bits(float x)
{
    int exponent;
    float fraction = frexpf(x, &exponent); /* x = fraction * 2^exponent, fraction in [0.5, 1) */
    return (uint16_t)(((exponent + 14) << 10) + lrintf((fraction * 2 - 1) * 1024));
}

static void put_u16(uint8_t *at, uint16_t v)
{
    at[0] = (uint8_t)v;
    at[1] = (uint8_t)(v >> 8);
}

static void put_u64(uint8_t *at, uint64_t v)
{
    memcpy(at, &v, sizeof v);
}

/* scale f16, 16 bytes of nibbles: w = scale * (code - 8) */
static void fill_q4_0(struct random *r, const uint16_t *scales, uint8_t *block)
{
    put_u16(block, scales[draw(r) >> 61]);
    for (int i = 0; i < 16; i += 8)
        put_u64(block + 2 + i, draw_nibbles(r));
}

/* scale f16, 32 signed codes: w = scale * code */
static void fill_q8_0(struct random *r, const uint16_t *scales, uint8_t *block)
{
    put_u16(block, scales[draw(r) >> 61]);
    for (int i = 0; i < 32; i += 8)
        put_u64(block + 2 + i, draw_bytes(r));
}

/* d f16, dmin f16, eight 6-bit scales and minima in 12 bytes, 128 bytes of nibbles: w = d * scale * code - dmin * min.
 * With min = scale and dmin = 8 d that is d * scale * (code - 8). Scales are 16 to 31. */
static void fill_q4_k(struct random *r, const uint16_t *scales, uint8_t *block)
{
    uint64_t bits = draw(r);
    uint16_t d = scales[bits >> 61];
    put_u16(block, d);
    put_u16(block + 2, (uint16_t)(d + (3 << 10)));
    for (int i = 0; i < 4; i++) {
        unsigned low = 16 + (bits & 15), high = 16 + (bits >> 4 & 15);
        bits >>= 8;
        block[4 + i] = block[8 + i] = (uint8_t)(low | (high >> 4) << 6);
        block[12 + i] = (uint8_t)((high & 15) * 0x11);
    }
    for (int i = 0; i < 128; i += 8)
        put_u64(block + 16 + i, draw_nibbles(r));
}

/* 128 bytes of low nibbles, 64 of high bit pairs, 16 signed scales, d f16: w = d * scale * (code - 32). The codes are
 * uniform (their mean is -0.5), so the scales, 16 to 31, have either sign. */
static void fill_q6_k(struct random *r, const uint16_t *scales, uint8_t *block)
{
    for (int i = 0; i < 192; i += 8)
        put_u64(block + i, draw(r));
    uint64_t bits = draw(r), signs = draw(r);
    for (int i = 0; i < 16; i++) {
        int magnitude = 16 + (int)(bits >> (4 * i) & 15);
        block[192 + i] = (uint8_t)(signs >> i & 1 ? magnitude : -magnitude);
    }
    put_u16(block + 208, scales[signs >> 61]);
}

struct block_maker {
    enum dtype type;
    float deviation; /* of a block's weights when its scale is 1 */
    void (*fill)(struct random *r, const uint16_t *scales, uint8_t *block);
};

static const struct block_maker block_makers[] = {
    {DT_Q4_0, 3.24f, fill_q4_0},
    {DT_Q8_0, 52.3f, fill_q8_0},
    {DT_Q4_K, 3.24f * 24, fill_q4_k},
    {DT_Q6_K, 18.5f * 24, fill_q6_k},
};

/* ---- the file ---- */

struct tensor {
    char name[64];
    enum dtype type; /* DT_F32: all ones, or the rope factors */
    int64_t cols, rows;
    uint64_t bytes;
};

struct output {
    FILE *file;
    const char *path;
    uint64_t at;    /* bytes written */
    uint64_t total; /* bytes of tensor data, for the progress bar */
    bool failed;
    int percent;
};

static void put(struct output *o, const void *bytes, size_t n)
{
    if (!o->failed && fwrite(bytes, 1, n, o->file) != n) {
        log_error("%s: cannot write at byte %llu: %s", o->path, (unsigned long long)o->at, strerror(errno));
        o->failed = true;
    }
    o->at += n;
}

static void put_u32_field(struct output *o, uint32_t v)
{
    uint8_t b[4];
    struct writer w = {b, b + sizeof b, false};
    write_u32(&w, v);
    put(o, b, sizeof b);
}

static void put_u64_field(struct output *o, uint64_t v)
{
    uint8_t b[8];
    struct writer w = {b, b + sizeof b, false};
    write_u64(&w, v);
    put(o, b, sizeof b);
}

static void put_f32_field(struct output *o, float v)
{
    uint8_t b[4];
    struct writer w = {b, b + sizeof b, false};
    write_f32(&w, v);
    put(o, b, sizeof b);
}

static void put_string(struct output *o, const char *s)
{
    put_u64_field(o, strlen(s));
    put(o, s, strlen(s));
}

static void key(struct output *o, const char *name, enum gguf_type type)
{
    put_string(o, name);
    put_u32_field(o, type);
}

static void key_u32(struct output *o, const char *name, uint32_t v)
{
    key(o, name, GGUF_U32);
    put_u32_field(o, v);
}

static void key_f32(struct output *o, const char *name, float v)
{
    key(o, name, GGUF_F32);
    put_f32_field(o, v);
}

static void key_string(struct output *o, const char *name, const char *v)
{
    key(o, name, GGUF_STRING);
    put_string(o, v);
}

static void key_array(struct output *o, const char *name, enum gguf_type type, uint64_t n)
{
    key(o, name, GGUF_ARRAY);
    put_u32_field(o, type);
    put_u64_field(o, n);
}

/* The text of token `id`: specials, bytes, the word mark, then words a, b, ..., z, aa, ... without and with it. */
static void token_text(uint32_t id, char text[WORD_MAX])
{
    static const char *const special[N_SPECIAL_TOKENS] = {"<unk>", "<s>", "</s>"};
    static const char mark[] = "\xe2\x96\x81"; /* U+2581, SentencePiece's space */
    if (id < N_SPECIAL_TOKENS) {
        strcpy(text, special[id]);
        return;
    }
    id -= N_SPECIAL_TOKENS;
    if (id < N_BYTE_TOKENS) {
        snprintf(text, WORD_MAX, "<0x%02X>", id);
        return;
    }
    id -= N_BYTE_TOKENS;
    char word[WORD_MAX];
    char *at = word + sizeof word - 1;
    *at = '\0';
    for (uint32_t n = (id + 1) / 2; n > 0; n = (n - 1) / 26) /* id 0 is the mark alone */
        *--at = (char)('a' + (n - 1) % 26);
    snprintf(text, WORD_MAX, "%s%s", id % 2 == 0 ? mark : "", at);
}

static void put_tokenizer(struct output *o, uint32_t vocab)
{
    enum { NORMAL = 1, UNKNOWN = 2, CONTROL = 3, BYTE = 6 };
    key_string(o, "tokenizer.ggml.model", "llama");
    key_array(o, "tokenizer.ggml.tokens", GGUF_STRING, vocab);
    for (uint32_t i = 0; i < vocab; i++) {
        char text[WORD_MAX];
        token_text(i, text);
        put_string(o, text);
    }
    const uint32_t first_word = N_SPECIAL_TOKENS + N_BYTE_TOKENS;
    key_array(o, "tokenizer.ggml.scores", GGUF_F32, vocab);
    for (uint32_t i = 0; i < vocab; i++)
        put_f32_field(o, i < first_word ? 0.0f : -(float)(i - first_word));
    key_array(o, "tokenizer.ggml.token_type", GGUF_I32, vocab);
    for (uint32_t i = 0; i < vocab; i++)
        put_u32_field(o, i == 0 ? UNKNOWN : i < N_SPECIAL_TOKENS ? CONTROL : i < first_word ? BYTE : NORMAL);
    key_u32(o, "tokenizer.ggml.unknown_token_id", 0);
    key_u32(o, "tokenizer.ggml.bos_token_id", 1);
    key_u32(o, "tokenizer.ggml.eos_token_id", 2);
}

enum { N_KEYS = 20 }; /* 13 below and 7 of the tokenizer */

static void put_keys(struct output *o, const struct options *opt)
{
    const struct shape *s = opt->shape;
    char name[64];
    snprintf(name, sizeof name, "random weights, %s shape, %u layers", s->name, opt->layers);
    key_string(o, "general.architecture", "llama");
    key_string(o, "general.name", name);
    key_u32(o, "general.file_type", opt->type->file_type);
    key_u32(o, "general.quantization_version", 2);
    key_u32(o, "llama.block_count", opt->layers);
    key_u32(o, "llama.context_length", s->context);
    key_u32(o, "llama.embedding_length", s->d_model);
    key_u32(o, "llama.feed_forward_length", s->d_ff);
    key_u32(o, "llama.attention.head_count", s->heads);
    key_u32(o, "llama.attention.head_count_kv", s->kv_heads);
    key_f32(o, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    key_u32(o, "llama.rope.dimension_count", s->head_dim);
    key_f32(o, "llama.rope.freq_base", s->rope_base);
    put_tokenizer(o, s->vocab);
}

static void add_tensor(struct tensor *list, int *n, const char *name, enum dtype type, int64_t cols, int64_t rows)
{
    struct tensor *t = &list[(*n)++];
    snprintf(t->name, sizeof t->name, "%s", name);
    t->type = type;
    t->cols = cols;
    t->rows = rows;
    t->bytes = (uint64_t)rows * dtype_row_bytes(type, cols);
}

static int list_tensors(struct tensor *list, const struct options *opt)
{
    const struct shape *s = opt->shape;
    const enum dtype body = opt->type->body;
    const int64_t d = s->d_model, head_dim = s->head_dim, q_rows = s->heads * head_dim;
    const int64_t kv_rows = s->kv_heads * head_dim;
    const struct {
        const char *name;
        enum dtype type;
        int64_t cols, rows;
    } layer[] = {
        {"attn_norm", DT_F32, d, 1}, {"attn_q", body, d, q_rows},      {"attn_k", body, d, kv_rows},
        {"attn_v", body, d, kv_rows}, {"attn_output", body, q_rows, d}, {"ffn_norm", DT_F32, d, 1},
        {"ffn_gate", body, d, s->d_ff}, {"ffn_up", body, d, s->d_ff},   {"ffn_down", body, s->d_ff, d},
    };
    int n = 0;
    add_tensor(list, &n, "token_embd.weight", s->tied ? opt->type->output : body, d, s->vocab);
    for (uint32_t l = 0; l < opt->layers; l++) {
        for (size_t i = 0; i < sizeof layer / sizeof layer[0]; i++) {
            char name[64];
            snprintf(name, sizeof name, "blk.%u.%s.weight", l, layer[i].name);
            add_tensor(list, &n, name, layer[i].type, layer[i].cols, layer[i].rows);
        }
    }
    add_tensor(list, &n, "output_norm.weight", DT_F32, d, 1);
    if (!s->tied)
        add_tensor(list, &n, "output.weight", opt->type->output, d, s->vocab);
    if (s->rope_factor > 0)
        add_tensor(list, &n, "rope_freqs.weight", DT_F32, s->head_dim / 2, 1);
    return n;
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

static void show_progress(struct output *o, uint64_t done, bool terminal)
{
    enum { WIDTH = 40 };
    int percent = (int)(done * 100 / o->total);
    if (!terminal || percent == o->percent)
        return;
    o->percent = percent;
    static const char full[WIDTH + 1] = "########################################";
    fprintf(stderr, "\r[%-*.*s] %3d %%%s", WIDTH, percent * WIDTH / 100, full, percent, percent == 100 ? "\n" : "");
}

static void put_f32_tensor(struct output *o, const struct tensor *t, const struct shape *s)
{
    bool factors = strcmp(t->name, "rope_freqs.weight") == 0;
    for (int64_t i = 0; i < t->cols; i++)
        put_f32_field(o, factors ? rope_divisor(s, i) : 1.0f);
}

static void put_blocks(struct output *o, const struct tensor *t, uint64_t seed, uint64_t done, uint8_t *chunk)
{
    const struct block_maker *maker = block_makers;
    while (maker->type != t->type)
        maker++;
    uint16_t scales[N_SCALES];
    for (int i = 0; i < N_SCALES; i++)
        scales[i] = f16_bits((1 + (float)i / 16) / (maker->deviation * sqrtf((float)t->cols)));
    const bool terminal = isatty(STDERR_FILENO);
    const size_t block_bytes = (size_t)dtype_block_bytes(t->type);
    const size_t chunk_bytes = CHUNK_BYTES / block_bytes * block_bytes;
    struct random r = {seed};
    for (uint64_t at = 0; at < t->bytes && !o->failed;) {
        size_t n = t->bytes - at < chunk_bytes ? (size_t)(t->bytes - at) : chunk_bytes;
        for (size_t i = 0; i < n; i += block_bytes)
            maker->fill(&r, scales, chunk + i);
        put(o, chunk, n);
        at += n;
        show_progress(o, done + at, terminal);
    }
}

static uint64_t aligned(uint64_t n)
{
    return (n + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static void put_padding(struct output *o)
{
    static const uint8_t zeros[ALIGNMENT];
    put(o, zeros, (size_t)(aligned(o->at) - o->at));
}

static void put_model(struct output *o, const struct options *opt, const struct tensor *list, int n, uint8_t *chunk)
{
    put(o, "GGUF", 4);
    put_u32_field(o, 3);
    put_u64_field(o, (uint64_t)n);
    put_u64_field(o, N_KEYS);
    put_keys(o, opt);
    for (int i = 0; i < n; i++) {
        const struct tensor *t = &list[i];
        put_string(o, t->name);
        put_u32_field(o, t->rows > 1 ? 2 : 1);
        put_u64_field(o, (uint64_t)t->cols);
        if (t->rows > 1)
            put_u64_field(o, (uint64_t)t->rows);
        put_u32_field(o, t->type);
        put_u64_field(o, o->total);
        o->total += aligned(t->bytes);
    }
    put_padding(o);
    struct random seeds = {opt->seed}; /* a seed per tensor: a tensor's weights do not depend on those before it */
    uint64_t done = 0;
    for (int i = 0; i < n && !o->failed; i++) {
        uint64_t seed = draw(&seeds);
        if (list[i].type == DT_F32)
            put_f32_tensor(o, &list[i], opt->shape);
        else
            put_blocks(o, &list[i], seed, done, chunk);
        put_padding(o);
        done += aligned(list[i].bytes);
    }
    show_progress(o, done, isatty(STDERR_FILENO));
}

static status write_model(const struct options *opt)
{
    struct output o = {.path = opt->path, .percent = -1};
    struct tensor *list = calloc(9 * (size_t)opt->layers + 4, sizeof *list);
    uint8_t *chunk = malloc(CHUNK_BYTES);
    struct stat info;
    status st = ST_NOMEM;
    if (!list || !chunk) {
        log_error("out of memory for the list of tensors");
        goto out;
    }
    o.file = fopen(opt->path, "wb");
    if (!o.file) {
        log_error("%s: cannot create: %s", opt->path, strerror(errno));
        st = ST_IO;
        goto out;
    }
    const bool regular = fstat(fileno(o.file), &info) == 0 && S_ISREG(info.st_mode);
    put_model(&o, opt, list, list_tensors(list, opt), chunk);
    if (fclose(o.file) != 0 && !o.failed) {
        log_error("%s: cannot write: %s", opt->path, strerror(errno));
        o.failed = true;
    }
    st = o.failed ? ST_IO : ST_OK;
    if (o.failed && regular)
        unlink(opt->path); /* half a model is of no use */
    if (!o.failed)
        fprintf(stderr, "%s: %s, %u layers, %s, %.2f GB\n", opt->path, opt->shape->name, opt->layers, opt->type->name,
                (double)o.at * 1e-9);
out:
    free(chunk);
    free(list);
    return st;
}

/* ---- the command line ---- */

const char *argp_program_version = "hearth-synth " HEARTH_VERSION;

static const char doc[] =
    "Writes a GGUF model of random weights in the shape of a Llama model, for benchmarks.\v"
    "Shapes: 1b is Llama 3.2 1B (16 layers, tied embedding), 7b is Llama 2 7B (32 layers), 70b is Llama 2 70B (80 "
    "layers).\n\n"
    "Types: q4_0 and q8_0 are used for every matrix. q4_k is Q4_K with Q6_K for the matrix that makes the logits, as "
    "in llama.cpp's Q4_K files: the embedding of 1b, the output matrix of the others. Norms are F32.\n\n"
    "The text of such a model means nothing. The same options and seed write the same file.";

enum { OPT_SHAPE = 256, OPT_TYPE, OPT_LAYERS, OPT_SEED };

static const struct argp_option argp_options[] = {
    {"shape", OPT_SHAPE, "SHAPE", 0, "1b, 7b or 70b", 0},
    {"type", OPT_TYPE, "TYPE", 0, "Weight type: q4_0, q8_0 or q4_k", 0},
    {"layers", OPT_LAYERS, "N", 0, "Write N layers (1 to 1000) instead of the shape's own number", 0},
    {"seed", OPT_SEED, "N", 0, "Seed of the weights (default 1)", 0},
    {"output", 'o', "FILE", 0, "The file to write", 0},
    {0},
};

static uint64_t parse_number(const char *arg, const char *option, uint64_t min, uint64_t max, struct argp_state *state)
{
    char *end;
    errno = 0;
    unsigned long long v = strtoull(arg, &end, 10);
    if (errno || end == arg || *end || *arg == '-' || v < min || v > max)
        argp_error(state, "%s takes a number from %llu to %llu, not '%s'", option, (unsigned long long)min,
                   (unsigned long long)max, arg);
    return v;
}

static error_t parse_option(int k, char *arg, struct argp_state *state)
{
    struct options *opt = state->input;
    switch (k) {
    case OPT_SHAPE:
        opt->shape = NULL;
        for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
            if (strcmp(arg, shapes[i].name) == 0)
                opt->shape = &shapes[i];
        if (!opt->shape)
            argp_error(state, "unknown shape '%s': 1b, 7b or 70b", arg);
        return 0;
    case OPT_TYPE:
        opt->type = NULL;
        for (size_t i = 0; i < sizeof weight_types / sizeof weight_types[0]; i++)
            if (strcmp(arg, weight_types[i].name) == 0)
                opt->type = &weight_types[i];
        if (!opt->type)
            argp_error(state, "unknown type '%s': q4_0, q8_0 or q4_k", arg);
        return 0;
    case OPT_LAYERS:
        opt->layers = (uint32_t)parse_number(arg, "--layers", 1, 1000, state);
        return 0;
    case OPT_SEED:
        opt->seed = parse_number(arg, "--seed", 0, UINT64_MAX, state);
        return 0;
    case 'o':
        opt->path = arg;
        return 0;
    case ARGP_KEY_END:
        if (!opt->shape || !opt->type || !opt->path)
            argp_error(state, "--shape, --type and -o are needed");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

int main(int argc, char **argv)
{
    static const struct argp argp = {argp_options, parse_option, NULL, doc, NULL, NULL, NULL};
    struct options opt = {.seed = 1};
    argp_err_exit_status = 2;
    if (argp_parse(&argp, argc, argv, 0, NULL, &opt) != 0)
        return 2;
    if (opt.layers == 0)
        opt.layers = opt.shape->layers;
    return write_model(&opt) == ST_OK ? 0 : 1;
}
