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

enum {
    NAME_SIZE = 64,
    MAX_RANK = 1 << 16 /* of an MLP, far beyond any real one */
};

const char neurons_preamble[NEURONS_PREAMBLE_BYTES + 1] =
    "\x14\0\0\0\0\0\0\0general.architecture" "\x08\0\0\0" "\x0e\0\0\0\0\0\0\0" NEURONS_ARCH /* a string */
    "\x17\0\0\0\0\0\0\0" NEURONS_KEY("checksum") "\x0a\0\0\0"; /* a u64 */

#define AT(field) offsetof(struct neurons, field)
const struct neurons_field neurons_scalars[] = {
    {NEURONS_KEY("skip_share"), AT(skip_share), 1, RANGE_SHARE},
    {NEURONS_KEY("perplexity.dense"), AT(perplexity_dense), 1, RANGE_POSITIVE},
    {NEURONS_KEY("perplexity.exact"), AT(perplexity_exact), 1, RANGE_POSITIVE},
    {NEURONS_KEY("perplexity.threshold"), AT(perplexity_threshold), 1, RANGE_POSITIVE},
    {NEURONS_KEY("perplexity.planes"), AT(perplexity_planes), 1, RANGE_POSITIVE},
    {NEURONS_KEY("perplexity.mlp"), AT(perplexity_mlp), 1, RANGE_POSITIVE},
    {0},
};
#undef AT
#define AT(field) offsetof(struct neuron_layer, field)
const struct neurons_field neurons_layer_fields[] = {
    {NEURONS_KEY("live"), AT(live), 1, RANGE_SHARE},
    {NEURONS_KEY("skip"), AT(skip), SKIP_STEPS, RANGE_POSITIVE},
    {NEURONS_KEY("planes.recall"), AT(planes.recall), 1, RANGE_SHARE},
    {NEURONS_KEY("planes.precision"), AT(planes.precision), 1, RANGE_SHARE},
    {NEURONS_KEY("planes.accuracy"), AT(planes.accuracy), 1, RANGE_SHARE},
    {NEURONS_KEY("planes.flagged"), AT(planes.flagged), 1, RANGE_SHARE},
    {NEURONS_KEY("mlp.threshold"), AT(mlp_threshold), 1, RANGE_FINITE},
    {NEURONS_KEY("mlp.recall"), AT(mlp.recall), 1, RANGE_SHARE},
    {NEURONS_KEY("mlp.precision"), AT(mlp.precision), 1, RANGE_SHARE},
    {NEURONS_KEY("mlp.accuracy"), AT(mlp.accuracy), 1, RANGE_SHARE},
    {NEURONS_KEY("mlp.flagged"), AT(mlp.flagged), 1, RANGE_SHARE},
    {0},
};
const struct neurons_array neurons_arrays[NEURONS_ARRAYS] = {
    {"fired", AT(fired), true, RANGE_SHARE},
    {"strength", AT(strength), true, RANGE_POSITIVE},
    {"weight", AT(weight), false, RANGE_POSITIVE},
    {"bound", AT(bound), false, RANGE_FINITE},
};
#undef AT

const float *neurons_array_of(const struct neuron_layer *l, const struct neurons_array *a)
{
    return *(const float *const *)((const char *)l + a->offset);
}

static const char *range_text(enum neurons_range r)
{
    return r == RANGE_SHARE ? "a number from 0 to 1" : r == RANGE_POSITIVE ? "a number, not negative" : "a number";
}

static bool in_range(float v, enum neurons_range r)
{
    return r == RANGE_SHARE ? v >= 0 && v <= 1 : r == RANGE_POSITIVE ? v >= 0 && v <= FLT_MAX : isfinite(v);
}

/* The numbers of `fields` in the structure at `base`; `of` says whose they are. */
static status check_fields(const struct neurons_field *fields, const void *base, const char *where, const char *of,
                           status code)
{
    for (const struct neurons_field *f = fields; f->key; f++) {
        const float *v = (const float *)((const char *)base + f->offset);
        for (size_t i = 0; i < f->n; i++) {
            if (!in_range(v[i], f->range)) {
                log_error("%s: key %s%s: expected %s, found %g", where, f->key, of, range_text(f->range),
                          (double)v[i]);
                return code;
            }
        }
    }
    return ST_OK;
}

/* Both matrices of a layer's MLP, or neither. */
static status check_mlp(const struct neurons *n, int layer, const char *where, status code)
{
    const struct matrix *fc1 = &n->layers[layer].fc1, *fc2 = &n->layers[layer].fc2;
    if (!fc1->data != !fc2->data) {
        log_error("%s: layer %d: expected the MLP's fc1 and fc2 or neither, found %s alone", where, layer,
                  fc1->data ? "fc1" : "fc2");
        return code;
    }
    if (fc1->data && (fc1->cols != n->d_model || fc2->rows != n->d_ff || fc1->rows != fc2->cols || fc1->rows < 1 ||
                      fc1->rows > MAX_RANK || fc2->cols % dtype_block(fc2->type) ||
                      fc1->cols % dtype_block(fc1->type))) {
        log_error("%s: layer %d: expected an MLP of fc1 [%" PRId64 ", r], fc2 [r, %" PRId64 "], r at most %d, found [%"
                  PRId64 ", %" PRId64 "] %s, [%" PRId64 ", %" PRId64 "] %s", where, layer, n->d_model, n->d_ff,
                  MAX_RANK, fc1->cols, fc1->rows, dtype_name(fc1->type), fc2->cols, fc2->rows, dtype_name(fc2->type));
        return code;
    }
    return ST_OK;
}

static status check_layer(const struct neurons *n, int layer, const char *where, status code)
{
    const struct neuron_layer *l = &n->layers[layer];
    for (const struct neurons_array *a = neurons_arrays; a < neurons_arrays + NEURONS_ARRAYS; a++) {
        const float *v = neurons_array_of(l, a);
        if (!v && a->required) {
            log_error("%s: tensor blk.%d.%s: expected one, found none", where, layer, a->name);
            return code;
        }
        for (int64_t i = 0; v && i < n->d_ff; i++) {
            if (!in_range(v[i], a->range)) {
                log_error("%s: tensor blk.%d.%s: expected %s, found %g at %" PRId64, where, layer, a->name,
                          range_text(a->range), (double)v[i], i);
                return code;
            }
        }
    }
    char of[24];
    snprintf(of, sizeof of, ", layer %d", layer);
    status s = check_mlp(n, layer, where, code);
    return s == ST_OK ? check_fields(neurons_layer_fields, l, where, of, code) : s;
}

status neurons_check(const struct neurons *n, const char *where, status code)
{
    status s = check_fields(neurons_scalars, n, where, "", code);
    double steps = (double)n->skip_share * (SKIP_STEPS + 1);
    if (s == ST_OK && (steps > SKIP_STEPS + .5 || fabs(steps - nearbyint(steps)) > 1e-3)) {
        log_error("%s: key %s: expected a multiple of 0.1 below 1, found %g", where, NEURONS_KEY("skip_share"),
                  (double)n->skip_share);
        return code;
    }
    for (int i = 0; s == ST_OK && i < n->n_layers; i++)
        s = check_layer(n, i, where, code);
    return s;
}

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

/* Before anything is parsed: whatever was cut off or changed is found here. */
static status check_whole(const uint8_t *bytes, size_t n, const char *where)
{
    static const uint8_t magic[8] = {'G', 'G', 'U', 'F', 3};
    if (n < NEURONS_CHECKSUM_AT + 8 || memcmp(bytes, magic, sizeof magic) ||
        memcmp(bytes + NEURONS_PREAMBLE_AT, neurons_preamble, NEURONS_PREAMBLE_BYTES)) {
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

/* A double that may be out of a float's range becomes an infinity, which neurons_check refuses. */
static float narrow(double v) { return fabs(v) <= FLT_MAX ? (float)v : INFINITY; }

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
    for (int i = 0; s == ST_OK && i < NEURONS_ARRAYS; i++)
        s = take_array(g, where, layer, neurons_arrays[i].name, n->d_ff,
                       (const float **)((char *)l + neurons_arrays[i].offset));
    if (s == ST_OK)
        s = take_matrix(g, where, layer, "fc1.weight", &l->fc1);
    return s == ST_OK ? take_matrix(g, where, layer, "fc2.weight", &l->fc2) : s;
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
    const struct hparams *hp = &model->hp;
    if (n->n_layers != hp->n_layers || n->d_model != hp->d_model || n->d_ff != hp->d_ff) {
        log_error("%s: expected %d layers, d_model %" PRId64 ", d_ff %" PRId64 " as the model has, found %d, %" PRId64
                  ", %" PRId64, where, hp->n_layers, hp->d_model, hp->d_ff, n->n_layers, n->d_model, n->d_ff);
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
