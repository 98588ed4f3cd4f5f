/* Reading PowerInfer's split file. */
#include "sparsity/gpuidx.h"

#include <inttypes.h>
#include <stdalign.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

enum { NAME_SIZE = 64 };

static bool architecture_is(const struct gguf *g, const char *name)
{
    struct gguf_string s;
    return gguf_get_string(g, "general.architecture", &s) && s.n == strlen(name) && !memcmp(s.at, name, s.n);
}

bool gpuidx_is_file(const struct gguf *g)
{
    return architecture_is(g, "generic.gpu_index") || architecture_is(g, "moe.gpu_idx");
}

/* The I32 array blk.LAYER.NAME; `n` elements of it unless n < 0. NULL in *out if there is none. */
static status find_array(const struct gguf *g, int layer, const char *name, int64_t n, const struct gguf_tensor **out)
{
    char full[NAME_SIZE];
    snprintf(full, sizeof full, "blk.%d.%s", layer, name);
    const struct gguf_tensor *t = gguf_find_tensor(g, full);
    if (t && (t->type != DT_I32 || t->n_dims != 1 || (n >= 0 && t->dims[0] != n) ||
              (uintptr_t)t->data % alignof(int32_t))) {
        char expected[24] = "n";
        if (n >= 0)
            snprintf(expected, sizeof expected, "%" PRId64, n);
        log_error("%s: tensor %s: expected I32 [%s], found %s [%" PRId64 "%s]", gguf_path(g), full, expected,
                  dtype_name(t->type), t->dims[0], t->n_dims > 1 ? ", ..." : "");
        return ST_FORMAT;
    }
    *out = t;
    return ST_OK;
}

/* The bucket says the same as the index in another way. */
static status check_bucket(const struct gguf *g, const struct gguf_tensor *bucket, const struct gpuidx *x,
                           const struct gpuidx_layer *l)
{
    const int32_t *ids = (const int32_t *)bucket->data;
    bool good = bucket->dims[0] == l->n_on_gpu;
    for (int64_t i = 0; good && i < bucket->dims[0]; i++)
        good = ids[i] >= 0 && ids[i] < x->d_ff && l->on_gpu[ids[i]] && (i == 0 || ids[i] > ids[i - 1]);
    if (good)
        return ST_OK;
    log_error("%s: tensor %s: expected the rising ids of the %" PRId64 " neurons that gpu_idx names, found others",
              gguf_path(g), bucket->name, l->n_on_gpu);
    return ST_FORMAT;
}

static status take_layer(struct gpuidx *x, int layer)
{
    struct gpuidx_layer *l = &x->layers[layer];
    const struct gguf_tensor *t, *bucket;
    status s = find_array(x->file, layer, "gpu_idx", layer ? x->d_ff : -1, &t);
    if (s != ST_OK)
        return s;
    if (!t || t->dims[0] < 1) {
        log_error("%s: tensor blk.%d.gpu_idx: expected one of a number for each neuron, found none",
                  gguf_path(x->file), layer);
        return ST_FORMAT;
    }
    x->d_ff = t->dims[0];
    l->on_gpu = (const int32_t *)t->data;
    for (int64_t i = 0; i < x->d_ff; i++) {
        if (l->on_gpu[i] != 0 && l->on_gpu[i] != 1) {
            log_error("%s: tensor %s: expected 0 or 1, found %" PRId32 " at %" PRId64, gguf_path(x->file), t->name,
                      l->on_gpu[i], i);
            return ST_FORMAT;
        }
        l->n_on_gpu += l->on_gpu[i];
    }
    s = find_array(x->file, layer, "gpu_bucket", -1, &bucket);
    return s == ST_OK && bucket ? check_bucket(x->file, bucket, x, l) : s;
}

static status take_header(const struct gguf *g, struct gpuidx *x)
{
    if (architecture_is(g, "moe.gpu_idx") || !gguf_is_powerinfer(g) || !gpuidx_is_file(g)) {
        bool experts = architecture_is(g, "moe.gpu_idx");
        log_error("%s: expected a PowerInfer split file (magic PWRI, generic.gpu_index), found %s", gguf_path(g),
                  experts ? "one for a mixture of experts" : "another kind of file");
        return experts ? ST_UNSUPPORTED : ST_FORMAT;
    }
    /* Each layer has a tensor, which bounds what is allocated for them. */
    uint64_t layers, tensors = (uint64_t)gguf_n_tensors(g);
    if (!gguf_get_u64(g, "generic.gpu_index.block_count", &layers) || layers < 1 || layers > tensors) {
        log_error("%s: key generic.gpu_index.block_count: expected 1 to %" PRIu64 " (the tensors), found another or no "
                  "value", gguf_path(g), tensors);
        return ST_FORMAT;
    }
    x->n_layers = (int)layers;
    gguf_get_u64(g, "split.vram_capacity", &x->vram_bytes);
    return ST_OK;
}

static status check_model(const struct gpuidx *x, const struct model *model)
{
    if (!model || (x->n_layers == model->hp.n_layers && x->d_ff == model->hp.d_ff))
        return ST_OK;
    log_error("%s: made for another model than %s: expected %d layers of %" PRId64 " neurons, found %d of %" PRId64,
              gguf_path(x->file), gguf_path(model->file), model->hp.n_layers, model->hp.d_ff, x->n_layers, x->d_ff);
    return ST_MISMATCH;
}

/* Takes g over, also on failure. */
static status from_gguf(struct gguf *g, const struct model *model, struct gpuidx **out)
{
    struct gpuidx *x = calloc(1, sizeof *x);
    if (!x) {
        log_error("%s: no memory to read it", gguf_path(g));
        gguf_close(g);
        return ST_NOMEM;
    }
    x->file = g;
    status s = take_header(g, x);
    if (s == ST_OK && !(x->layers = calloc((size_t)x->n_layers, sizeof *x->layers))) {
        log_error("%s: no memory for %d layers", gguf_path(g), x->n_layers);
        s = ST_NOMEM;
    }
    for (int i = 0; s == ST_OK && i < x->n_layers; i++)
        s = take_layer(x, i);
    if (s == ST_OK)
        s = check_model(x, model);
    if (s != ST_OK) {
        gpuidx_free(x);
        return s;
    }
    *out = x;
    return ST_OK;
}

status gpuidx_load(const char *path, const struct model *model, struct gpuidx **out)
{
    struct gguf *g;
    status s = gguf_open(path, &g);
    return s == ST_OK ? from_gguf(g, model, out) : s;
}

status gpuidx_parse(const uint8_t *bytes, size_t n, const char *where, const struct model *model, struct gpuidx **out)
{
    struct gguf *g;
    status s = gguf_open_bytes(bytes, n, where, &g);
    return s == ST_OK ? from_gguf(g, model, out) : s;
}

void gpuidx_free(struct gpuidx *x)
{
    if (!x)
        return;
    gguf_close(x->file);
    free(x->layers);
    free(x);
}
