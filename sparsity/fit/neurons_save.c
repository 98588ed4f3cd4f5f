/* The GGUF header is made in memory, the tensors are written straight from where they lie. */
#include "sparsity/fit/neurons_save.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

#include "base/log.h"
#include "base/replacement.h"
#include "sparsity/neurons_file.h"

enum { ALIGNMENT = 32, LAYER_TENSORS = NEURONS_ARRAYS + 2 };

/* The header as it grows. */
struct header {
    uint8_t *at; /* malloc'ed */
    size_t n, cap;
    uint64_t n_keys;
    bool failed; /* out of memory: nothing after it was written */
};

/* A tensor to write. */
struct item {
    char name[32];
    enum dtype type;
    int64_t dims[2]; /* fastest first */
    int n_dims;
    const void *data;
    uint64_t bytes;
};

static void put(struct header *h, const void *bytes, size_t n)
{
    if (!h->failed && n > h->cap - h->n) {
        size_t cap = 2 * (h->n + n);
        uint8_t *grown = realloc(h->at, cap);
        h->failed = !grown;
        if (grown) {
            h->at = grown;
            h->cap = cap;
        }
    }
    if (h->failed)
        return;
    memcpy(h->at + h->n, bytes, n);
    h->n += n;
}

static void put_uint(struct header *h, uint64_t v, size_t n_bytes)
{
    uint8_t b[8];
    for (int i = 0; i < 8; i++)
        b[i] = (uint8_t)(v >> (8 * i));
    put(h, b, n_bytes);
}

static void put_f32(struct header *h, float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    put_uint(h, u, sizeof u);
}

static void put_string(struct header *h, const char *s)
{
    put_uint(h, strlen(s), 8);
    put(h, s, strlen(s));
}

static void begin_key(struct header *h, const char *key, enum gguf_type type)
{
    put_string(h, key);
    put_uint(h, type, 4);
    h->n_keys++;
}

static void put_u64_key(struct header *h, const char *key, uint64_t v)
{
    begin_key(h, key, GGUF_U64);
    put_uint(h, v, 8);
}

static void put_string_key(struct header *h, const char *key, const char *v)
{
    begin_key(h, key, GGUF_STRING);
    put_string(h, v);
}

static void put_keys(struct header *h, const struct neurons *n)
{
    put(h, neurons_preamble, NEURONS_PREAMBLE_BYTES);
    put_uint(h, 0, 8); /* the checksum */
    h->n_keys = 2;
    begin_key(h, NEURONS_KEY("version"), GGUF_U32);
    put_uint(h, NEURONS_VERSION, 4);
    put_u64_key(h, NEURONS_KEY("model_hash"), n->model_hash);
    put_u64_key(h, NEURONS_KEY("model_bytes"), n->model_bytes);
    put_string_key(h, NEURONS_KEY("activation"), activation_name(n->activation));
    put_u64_key(h, NEURONS_KEY("n_layers"), (uint64_t)n->n_layers);
    put_u64_key(h, NEURONS_KEY("d_model"), (uint64_t)n->d_model);
    put_u64_key(h, NEURONS_KEY("d_ff"), (uint64_t)n->d_ff);
    for (const struct neurons_count *c = neurons_counts; n->experts.n && c < neurons_counts + NEURONS_COUNTS; c++)
        put_u64_key(h, c->key, *(const uint64_t *)((const char *)n + c->offset));
    put_u64_key(h, NEURONS_KEY("tokens"), n->n_tokens);
    put_string_key(h, NEURONS_KEY("text"), n->text);
    for (const struct neurons_field *f = neurons_scalars; f->key; f++) {
        begin_key(h, f->key, GGUF_F32);
        put_f32(h, *(const float *)((const char *)n + f->offset));
    }
    for (const struct neurons_field *f = neurons_layer_fields; f->key; f++) {
        begin_key(h, f->key, GGUF_ARRAY);
        put_uint(h, GGUF_F32, 4);
        put_uint(h, (uint64_t)n->n_layers * f->n, 8);
        for (int i = 0; i < n->n_layers; i++)
            for (size_t j = 0; j < f->n; j++)
                put_f32(h, ((const float *)((const char *)&n->layers[i] + f->offset))[j]);
    }
}

static void add_matrix(struct item *items, int *n, int layer, const char *name, const struct matrix *m)
{
    if (!m->data)
        return;
    struct item *t = &items[(*n)++];
    *t = (struct item){.type = m->type, .n_dims = 2, .dims = {m->cols, m->rows}, .data = m->data,
                       .bytes = (uint64_t)m->rows * dtype_row_bytes(m->type, m->cols)};
    snprintf(t->name, sizeof t->name, "blk.%d.%s", layer, name);
}

/* Fills `items` with the tensors that there are and returns how many. */
static int list_tensors(const struct neurons *n, struct item *items /* [n_layers * LAYER_TENSORS] */)
{
    int count = 0;
    for (int i = 0; i < n->n_layers; i++) {
        for (const struct neurons_array *a = neurons_arrays; a < neurons_arrays + NEURONS_ARRAYS; a++) {
            const float *v = neurons_array_of(&n->layers[i], a);
            if (!v)
                continue;
            struct item *t = &items[count++];
            const int64_t length = neurons_array_length(n, i, a);
            *t = (struct item){.type = DT_F32, .n_dims = 1, .dims = {length, 1}, .data = v,
                               .bytes = (uint64_t)length * sizeof(float)};
            snprintf(t->name, sizeof t->name, "blk.%d.%s", i, a->name);
        }
        add_matrix(items, &count, i, "fc1.weight", &n->layers[i].fc1);
        add_matrix(items, &count, i, "fc2.weight", &n->layers[i].fc2);
    }
    return count;
}

static uint64_t padding(uint64_t n) { return (ALIGNMENT - n % ALIGNMENT) % ALIGNMENT; }

static void put_table(struct header *h, const struct item *items, int n)
{
    uint64_t offset = 0;
    for (const struct item *t = items; t < items + n; t++) {
        put_string(h, t->name);
        put_uint(h, (uint64_t)t->n_dims, 4);
        for (int i = 0; i < t->n_dims; i++)
            put_uint(h, (uint64_t)t->dims[i], 8);
        put_uint(h, t->type, 4);
        put_uint(h, offset, 8);
        offset += t->bytes + padding(t->bytes);
    }
    static const uint8_t zeros[ALIGNMENT];
    put(h, zeros, padding(h->n));
}

/* A file that is being written. */
struct output {
    struct replacement file;
    XXH3_state_t hash; /* of what was written */
};

static status put_out(struct output *o, const void *bytes, size_t n)
{
    XXH3_64bits_update(&o->hash, bytes, n);
    return replacement_write(&o->file, bytes, n);
}

static status write_file(struct output *o, const struct header *h, const struct item *items, int n)
{
    static const uint8_t zeros[ALIGNMENT];
    XXH3_64bits_reset(&o->hash);
    status s = put_out(o, h->at, h->n);
    for (const struct item *t = items; s == ST_OK && t < items + n; t++) {
        s = put_out(o, t->data, t->bytes);
        if (s == ST_OK)
            s = put_out(o, zeros, padding(t->bytes));
    }
    if (s != ST_OK)
        return s;
    uint64_t checksum = XXH3_64bits_digest(&o->hash);
    uint8_t bytes[8];
    for (int i = 0; i < 8; i++)
        bytes[i] = (uint8_t)(checksum >> (8 * i));
    if (pwrite(o->file.fd, bytes, sizeof bytes, NEURONS_CHECKSUM_AT) != sizeof bytes)
        return replacement_failed(&o->file);
    return ST_OK;
}

static status replace(const char *path, const struct header *h, const struct item *items, int n)
{
    struct output o;
    status s = replacement_open(path, &o.file);
    return s == ST_OK ? replacement_close(&o.file, write_file(&o, h, items, n), 0644) : s;
}

status neurons_save(const struct neurons *n, const char *path)
{
    status s = neurons_check(n, path, ST_INTERNAL);
    if (s != ST_OK)
        return s;
    struct header h = {0};
    struct item *items = calloc((size_t)n->n_layers * LAYER_TENSORS, sizeof *items);
    if (items) {
        int count = list_tensors(n, items);
        put(&h, "GGUF\3\0\0", 8);
        put_uint(&h, (uint64_t)count, 8);
        put_uint(&h, 0, 8); /* how many keys, known in the end */
        put_keys(&h, n);
        put_table(&h, items, count);
        if (!h.failed) {
            for (int i = 0; i < 8; i++)
                h.at[16 + i] = (uint8_t)(h.n_keys >> (8 * i));
            s = replace(path, &h, items, count);
        }
    }
    if (!items || h.failed) {
        log_error("%s: no memory for its header", path);
        s = ST_NOMEM;
    }
    free(items);
    free(h.at);
    return s;
}
