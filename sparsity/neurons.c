/* Reading and checking the neuron file. */
#include "sparsity/neurons.h"

#include <ctype.h>
#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdalign.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#define XXH_STATIC_LINKING_ONLY /* for a state without an allocation */
#include <xxhash.h>

#include "base/bytes.h"
#include "base/log.h"
#include "sparsity/neurons_file.h"

enum { NAME_SIZE = 64 };

const char neurons_preamble[NEURONS_PREAMBLE_BYTES + 1] =
    "\x14\0\0\0\0\0\0\0general.architecture" "\x08\0\0\0" "\x0e\0\0\0\0\0\0\0" NEURONS_ARCH /* a string */
    "\x17\0\0\0\0\0\0\0" NEURONS_KEY("checksum") "\x0a\0\0\0"; /* a u64 */

uint64_t neurons_checksum(const uint8_t *bytes, size_t n)
{
    static const uint8_t zero[8];
    XXH3_state_t state;
    XXH3_64bits_reset(&state);
    XXH3_64bits_update(&state, bytes, NEURONS_CHECKSUM_AT);
    XXH3_64bits_update(&state, zero, sizeof zero);
    XXH3_64bits_update(&state, bytes + NEURONS_CHECKSUM_AT + 8, n - NEURONS_CHECKSUM_AT - 8);
    return XXH3_64bits_digest(&state);
}

bool neurons_begin(const uint8_t *bytes, size_t n)
{
    static const uint8_t magic[8] = {'G', 'G', 'U', 'F', 3};
    return n >= NEURONS_CHECKSUM_AT + 8 && !memcmp(bytes, magic, sizeof magic) &&
           !memcmp(bytes + NEURONS_PREAMBLE_AT, neurons_preamble, NEURONS_PREAMBLE_BYTES);
}

/* Before anything is parsed: whatever was cut off or changed is found here. */
static status check_whole(const uint8_t *bytes, size_t n, const char *where)
{
    if (!neurons_begin(bytes, n)) {
        log_error("%s: byte 0: expected the header of a neuron file, found another one%s", where,
                  n < NEURONS_CHECKSUM_AT + 8 ? " (the file is too short)" : "");
        return ST_FORMAT;
    }
    struct reader r = {bytes + NEURONS_CHECKSUM_AT, bytes + n, false};
    uint64_t expected = read_u64(&r), found = neurons_checksum(bytes, n);
    if (expected != found) {
        log_error("%s: checksum of %zu bytes: expected %016" PRIx64 ", found %016" PRIx64
                  ": the file was cut off or changed", where, n, expected, found);
        return ST_FORMAT;
    }
    return ST_OK;
}

static status wrong_key(const char *where, const char *key, const char *expected)
{
    log_error("%s: key %s: expected %s, found none or another kind of value", where, key, expected);
    return ST_FORMAT;
}

static status take_u64(const struct gguf *g, const char *where, const char *key, uint64_t least, uint64_t most,
                       uint64_t *out)
{
    if (!gguf_get_u64(g, key, out))
        return wrong_key(where, key, "an integer, not negative");
    if (*out < least || *out > most) {
        log_error("%s: key %s: expected %" PRIu64 " to %" PRIu64 ", found %" PRIu64, where, key, least, most, *out);
        return ST_FORMAT;
    }
    return ST_OK;
}

/* A double that is out of a float's range becomes an infinity. */
static float narrow(double v) { return v > FLT_MAX ? INFINITY : v < -FLT_MAX ? -INFINITY : (float)v; }

static status take_fields(const struct gguf *g, const char *where, struct neurons *n)
{
    for (const struct neurons_field *f = neurons_scalars; f->key; f++) {
        double v;
        if (!gguf_get_f64(g, f->key, &v))
            return wrong_key(where, f->key, "a number");
        *(float *)((char *)n + f->offset) = narrow(v);
    }
    for (const struct neurons_field *f = neurons_layer_fields; f->key; f++) {
        enum gguf_type type;
        uint64_t count;
        if (!gguf_get_array(g, f->key, &type, &count) || count != f->n * (uint64_t)n->n_layers ||
            (type != GGUF_F32 && type != GGUF_F64))
            return wrong_key(where, f->key,
                             f->n > 1 ? "an array of nine numbers a layer" : "an array of a number a layer");
        for (uint64_t i = 0; i < count; i++) {
            double v = NAN;
            gguf_array_f64(g, f->key, i, &v);
            ((float *)((char *)&n->layers[i / f->n] + f->offset))[i % f->n] = narrow(v);
        }
    }
    return ST_OK;
}

static status take_strings(const struct gguf *g, const char *where, struct neurons *n)
{
    struct gguf_string s;
    if (!gguf_get_string(g, NEURONS_KEY("activation"), &s) || !activation_of(s.at, s.n, &n->activation))
        return wrong_key(where, NEURONS_KEY("activation"), "silu, relu, relu2 or drelu");
    if (!gguf_get_string(g, NEURONS_KEY("text"), &s) || s.n >= sizeof n->text || memchr(s.at, 0, s.n))
        return wrong_key(where, NEURONS_KEY("text"), "a name of at most 63 bytes");
    memcpy(n->text, s.at, s.n);
    return ST_OK;
}

/* The tensor blk.LAYER.NAME, NULL if there is none. */
static const struct gguf_tensor *find(const struct gguf *g, int layer, const char *name)
{
    char full[NAME_SIZE];
    snprintf(full, sizeof full, "blk.%d.%s", layer, name);
    return gguf_find_tensor(g, full);
}

static status take_array(const struct gguf *g, const char *where, int layer, const char *name, int64_t n,
                         const float **out)
{
    const struct gguf_tensor *t = find(g, layer, name);
    if (t && (t->type != DT_F32 || t->n_dims != 1 || t->dims[0] != n || (uintptr_t)t->data % alignof(float))) {
        log_error("%s: tensor %s: expected F32 [%" PRId64 "], found %s [%" PRId64 "%s]", where, t->name, n,
                  dtype_name(t->type), t->dims[0], t->n_dims > 1 ? ", ..." : "");
        return ST_FORMAT;
    }
    *out = t ? (const float *)t->data : NULL;
    return ST_OK;
}

/* A matrix of any shape; check_mlp looks at that. */
static status take_matrix(const struct gguf *g, const char *where, int layer, const char *name, struct matrix *out)
{
    const struct gguf_tensor *t = find(g, layer, name);
    if (t && (t->n_dims > 2 || !dtype_is_weight(t->type))) {
        log_error("%s: tensor %s: expected a matrix of a type of weights, found %d dimensions of %s", where, t->name,
                  t->n_dims, dtype_name(t->type));
        return ST_FORMAT;
    }
    if (t)
        *out = (struct matrix){.type = t->type, .rows = t->dims[1], .cols = t->dims[0], .data = t->data,
                               .name = t->name};
    return ST_OK;
}

static status take_layer(const struct gguf *g, const char *where, const struct neurons *n, int layer)
{
    struct neuron_layer *l = &n->layers[layer];
    status s = ST_OK;
    for (const struct neurons_array *a = neurons_arrays; s == ST_OK && a < neurons_arrays + NEURONS_ARRAYS; a++) {
        const int64_t length = neurons_array_length(n, layer, a);
        if (length)
            s = take_array(g, where, layer, a->name, length, (const float **)((char *)l + a->offset));
    }
    if (s == ST_OK)
        s = take_matrix(g, where, layer, "fc1.weight", &l->fc1);
    return s == ST_OK ? take_matrix(g, where, layer, "fc2.weight", &l->fc2) : s;
}

static int64_t count_of(const struct neurons *n, const struct neurons_count *c)
{
    return *(const int64_t *)((const char *)n + c->offset);
}

static status check_model(const struct neurons *n, const char *where, const struct model *model)
{
    uint64_t hash = gguf_hash(model->file);
    if (n->model_hash != hash) {
        log_error("%s: made for another model (hash %016" PRIx64 ") than %s (hash %016" PRIx64 "): make a new one with "
                  "`hearth prepare -m %s -f TEXT`", where, n->model_hash, gguf_path(model->file), hash,
                  gguf_path(model->file));
        return ST_MISMATCH;
    }
    struct neurons of = {0};
    neurons_shape_of(model, &of);
    if (n->n_layers != of.n_layers || n->d_model != of.d_model || n->d_ff != of.d_ff) {
        log_error("%s: expected %d layers, d_model %" PRId64 ", d_ff %" PRId64 " as the model has, found %d, %" PRId64
                  ", %" PRId64, where, of.n_layers, of.d_model, of.d_ff, n->n_layers, n->d_model, n->d_ff);
        return ST_FORMAT;
    }
    for (const struct neurons_count *c = neurons_counts; c < neurons_counts + NEURONS_COUNTS; c++) {
        const int64_t expected = count_of(&of, c), found = count_of(n, c);
        if (expected != found) {
            log_error("%s: key %s: expected %" PRId64 " as the model has, found %" PRId64, where, c->key, expected,
                      found);
            return ST_FORMAT;
        }
    }
    return ST_OK;
}

/* How experts lie; without the first key there are none. */
static status take_experts(const struct gguf *g, const char *where, struct neurons *n)
{
    status s = ST_OK;
    uint64_t v;
    if (!gguf_get_u64(g, neurons_counts->key, &v))
        return ST_OK;
    for (const struct neurons_count *c = neurons_counts; s == ST_OK && c < neurons_counts + NEURONS_COUNTS; c++) {
        s = take_u64(g, where, c->key, 0, INT32_MAX, &v);
        if (s == ST_OK)
            *(int64_t *)((char *)n + c->offset) = (int64_t)v;
    }
    if (s != ST_OK)
        return s;
    const int64_t most = n->experts.n * n->experts.width + n->experts.shared, dense = n->experts.dense_layers;
    if (n->experts.n < 2 || n->experts.width < 1 || n->experts.used < 1 || n->experts.used > n->experts.n ||
        dense >= n->n_layers || !dense != !n->experts.dense ||
        n->d_ff != (most > n->experts.dense ? most : n->experts.dense)) {
        log_error("%s: expected layers of %" PRId64 " neurons at most, found %" PRId64 " experts of %" PRId64
                  ", of which a token uses %" PRId64 ", %" PRId64 " shared, and %" PRId64 " layers of %" PRId64, where,
                  n->d_ff, n->experts.n, n->experts.width, n->experts.used, n->experts.shared, dense, n->experts.dense);
        return ST_FORMAT;
    }
    return ST_OK;
}

/* The version comes first: what another one means is not known. */
static status take_header(const struct gguf *g, const char *where, struct neurons *n)
{
    uint64_t v = 0, layers = 0, d_model = 0, d_ff = 0;
    status s = take_u64(g, where, NEURONS_KEY("version"), 0, UINT64_MAX, &v);
    if (s == ST_OK && v != NEURONS_VERSION) {
        log_error("%s: key %s: expected %d, found %" PRIu64 ": make a new one with `hearth prepare`", where,
                  NEURONS_KEY("version"), NEURONS_VERSION, v);
        return ST_UNSUPPORTED;
    }
    if (s == ST_OK)
        s = take_u64(g, where, NEURONS_KEY("model_hash"), 0, UINT64_MAX, &n->model_hash);
    if (s == ST_OK)
        s = take_u64(g, where, NEURONS_KEY("model_bytes"), 0, UINT64_MAX, &n->model_bytes);
    if (s == ST_OK)
        s = take_u64(g, where, NEURONS_KEY("tokens"), 0, UINT64_MAX, &n->n_tokens);
    /* Each layer has a tensor, which bounds what is allocated for them. */
    if (s == ST_OK)
        s = take_u64(g, where, NEURONS_KEY("n_layers"), 1, (uint64_t)gguf_n_tensors(g), &layers);
    if (s == ST_OK)
        s = take_u64(g, where, NEURONS_KEY("d_model"), 1, INT32_MAX, &d_model);
    if (s == ST_OK)
        s = take_u64(g, where, NEURONS_KEY("d_ff"), 1, INT32_MAX, &d_ff);
    n->n_layers = (int)layers;
    n->d_model = (int64_t)d_model;
    n->d_ff = (int64_t)d_ff;
    return s;
}

/* Takes g over, also on failure. */
static status from_gguf(struct gguf *g, const struct model *model, struct neurons **out)
{
    const char *where = gguf_path(g);
    status s = ST_NOMEM;
    struct neurons *n = calloc(1, sizeof *n);
    if (!n) {
        log_error("%s: no memory to read it", where);
        gguf_close(g);
        return s;
    }
    n->file = g;
    s = take_header(g, where, n);
    if (s == ST_OK)
        s = take_experts(g, where, n);
    if (s == ST_OK && model)
        s = check_model(n, where, model);
    if (s != ST_OK)
        goto fail;
    n->layers = calloc((size_t)n->n_layers, sizeof *n->layers);
    if (!n->layers) {
        log_error("%s: no memory for %d layers", where, n->n_layers);
        s = ST_NOMEM;
        goto fail;
    }
    s = take_strings(g, where, n);
    if (s == ST_OK)
        s = take_fields(g, where, n);
    for (int i = 0; s == ST_OK && i < n->n_layers; i++)
        s = take_layer(g, where, n, i);
    if (s == ST_OK)
        s = neurons_check(n, where, ST_FORMAT);
    if (s == ST_OK) {
        *out = n;
        return s;
    }
fail:
    neurons_free(n);
    return s;
}

status neurons_load(const char *path, const struct model *model, struct neurons **out)
{
    struct gguf *g;
    status s = gguf_open_checked(path, check_whole, &g);
    return s == ST_OK ? from_gguf(g, model, out) : s;
}

status neurons_parse(const uint8_t *bytes, size_t n, const char *where, const struct model *model,
                     struct neurons **out)
{
    struct gguf *g;
    status s = check_whole(bytes, n, where);
    if (s == ST_OK)
        s = gguf_open_bytes(bytes, n, where, &g);
    return s == ST_OK ? from_gguf(g, model, out) : s;
}

void neurons_free(struct neurons *n)
{
    if (!n)
        return;
    gguf_close(n->file);
    free(n->layers);
    free(n);
}

bool neurons_is_file(const struct gguf *g)
{
    struct gguf_string s;
    return gguf_get_string(g, "general.architecture", &s) && s.n == strlen(NEURONS_ARCH) &&
           !memcmp(s.at, NEURONS_ARCH, s.n);
}

bool neurons_have_weights(const struct neurons *n)
{
    bool all = n != NULL;
    for (int i = 0; all && i < n->n_layers; i++)
        all = n->layers[i].weight != NULL;
    return all;
}

bool neurons_have_bounds(const struct neurons *n)
{
    bool all = n != NULL;
    for (int i = 0; all && i < n->n_layers; i++)
        all = n->layers[i].bound != NULL;
    return all;
}

bool neurons_have_mlp(const struct neurons *n)
{
    bool all = n != NULL;
    for (int i = 0; all && i < n->n_layers; i++)
        all = n->layers[i].fc1.data != NULL;
    return all;
}

/* How many of the first n bytes of a path come before ".gguf", or before "-00001-of-0000N.gguf" of a split model. */
static size_t stem_bytes(const char *path)
{
    static const char part[] = "-00001-of-";
    enum { DIGITS = 5, PART = sizeof part - 1 };
    size_t n = strlen(path);
    if (n < 5 || strcmp(path + n - 5, ".gguf"))
        return n;
    n -= 5;
    if (n <= PART + DIGITS || memcmp(path + n - DIGITS - PART, part, PART))
        return n;
    for (size_t i = n - DIGITS; i < n; i++)
        if (!isdigit((unsigned char)path[i]))
            return n;
    return n - DIGITS - PART;
}

char *neurons_path(const char *model_path)
{
    static const char ending[] = ".neurons.gguf";
    size_t n = stem_bytes(model_path);
    char *path = malloc(n + sizeof ending);
    if (path) {
        memcpy(path, model_path, n);
        memcpy(path + n, ending, sizeof ending);
    }
    return path;
}
