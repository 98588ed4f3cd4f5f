/* What is in a neuron file or in PowerInfer's split file. */
#include "cli/inspect.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/utf8.h"
#include "sparsity/gpuidx.h"
#include "sparsity/neurons.h"

static status cannot(const char *path)
{
    log_error("%s: no memory for the summary", path);
    return ST_NOMEM;
}

/* A name from a file as a JSON string, which must be UTF-8. */
static json_t *text_json(const char *text)
{
    char good[sizeof((struct neurons *)0)->text];
    size_t n = strlen(text), step;
    memcpy(good, text, n + 1);
    for (size_t i = 0; i < n; i += step) {
        step = utf8_character(good + i, n - i);
        if (!step) {
            good[i] = '?';
            step = 1;
        }
    }
    return json_string(good);
}

/* ---- neuron files ---- */

static uint64_t mlp_bytes(const struct neuron_layer *l)
{
    if (!l->fc1.data)
        return 0;
    return (uint64_t)l->fc1.rows * dtype_row_bytes(l->fc1.type, l->fc1.cols) +
           (uint64_t)l->fc2.rows * dtype_row_bytes(l->fc2.type, l->fc2.cols);
}

/* The share of a layer's neurons that never fired, and of those that fired for more than half of the tokens that look
 * at them. */
static void count_extremes(const struct neurons *n, int layer, double *never, double *often)
{
    const int64_t all = neurons_of_layer(n, layer);
    const float *fired = n->layers[layer].fired;
    int64_t zero = 0, half = 0;
    for (int64_t i = 0; i < all; i++) {
        zero += fired[i] == 0;
        half += fired[i] > 0.5f * neurons_looked_at(n, layer, i);
    }
    *never = (double)zero / (double)all;
    *often = (double)half / (double)all;
}

/* Each expert of a layer: how many tokens have chosen it, and what fires of it for one of those. */
static json_t *experts_json(const struct neurons *n, int layer)
{
    json_t *a = neurons_experts(n, layer) ? json_array() : json_null();
    for (int64_t e = 0; e < neurons_experts(n, layer); e++)
        json_array_append_new(a, json_pack("{s:f, s:I, s:f}", "chosen", (double)n->layers[layer].chosen[e], "tokens",
                                           (json_int_t)neurons_expert_tokens(n, layer, e), "live",
                                           neurons_expert_live(n, layer, e)));
    return a;
}

/* The experts that are chosen most and least, by how many tokens; empty in a layer that has none. */
static void add_experts(json_t *row, const struct neurons *n, int layer)
{
    const bool there = neurons_experts(n, layer) > 0;
    const struct expert_use use = neurons_expert_use(n, layer);
    json_object_set_new(row, "chosen_most", there ? json_integer((json_int_t)use.most) : json_null());
    json_object_set_new(row, "chosen_least", there ? json_integer((json_int_t)use.least) : json_null());
    json_object_set_new(row, "chosen_rarely", there ? json_integer((json_int_t)use.rare) : json_null());
}

static json_t *quality_json(const struct predictor_quality *q)
{
    return json_pack("{s:f, s:f, s:f, s:f}", "recall", (double)q->recall, "precision", (double)q->precision, "accuracy",
                     (double)q->accuracy, "flagged", (double)q->flagged);
}

static json_t *mlp_json(const struct neuron_layer *l)
{
    if (!l->fc1.data)
        return json_null();
    json_t *q = quality_json(&l->mlp);
    /* JSON has no infinity: a threshold that no logit reaches is null. */
    json_t *threshold = isfinite(l->mlp_threshold) ? json_real((double)l->mlp_threshold) : json_null();
    json_t *o = json_pack("{s:I, s:s, s:s, s:I, s:o}", "rank", (json_int_t)l->fc1.rows, "fc1_type",
                          dtype_name(l->fc1.type), "fc2_type", dtype_name(l->fc2.type), "bytes",
                          (json_int_t)mlp_bytes(l), "threshold", threshold);
    if (!o || !q || json_object_update(o, q) != 0) {
        json_decref(o);
        o = NULL;
    }
    json_decref(q);
    return o;
}

static json_t *skip_json(const struct neuron_layer *l)
{
    json_t *a = l->weight ? json_array() : json_null();
    for (int i = 0; l->weight && i < SKIP_STEPS; i++)
        json_array_append_new(a, json_real((double)l->skip[i]));
    return a;
}

/* A layer with all its numbers, for programs. */
static json_t *layer_json(const struct neurons *n, int i)
{
    const struct neuron_layer *l = &n->layers[i];
    double never, often;
    count_extremes(n, i, &never, &often);
    json_t *o = json_pack("{s:i, s:f, s:f, s:f, s:o, s:o, s:o}", "layer", i, "live", (double)l->live, "never_fired",
                          never, "often_fired", often, "skip", skip_json(l), "planes",
                          l->bound ? quality_json(&l->planes) : json_null(), "mlp", mlp_json(l));
    if (n->experts.n)
        json_object_set_new(o, "experts", experts_json(n, i));
    return o;
}

static json_t *decimal(bool there, double v) { return there ? json_sprintf("%.3f", v) : json_null(); }

/* Adds the columns of a predictor, "planes_recall" and so on; empty in a layer that has none. */
static void add_quality(json_t *row, const char *name, bool there, const struct predictor_quality *q)
{
    const struct {
        const char *name;
        float value;
    } columns[] = {{"recall", q->recall}, {"precision", q->precision}, {"accuracy", q->accuracy},
                   {"flagged", q->flagged}};
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++) {
        char key[32];
        snprintf(key, sizeof key, "%s_%s", name, columns[i].name);
        json_object_set_new(row, key, decimal(there, (double)columns[i].value));
    }
}

/* What some layer has, and so all rows have a column for. */
struct columns {
    bool weight, bound, mlp;
};

static struct columns columns_of(const struct neurons *n)
{
    struct columns c = {0};
    for (int i = 0; i < n->n_layers; i++) {
        c.weight |= n->layers[i].weight != NULL;
        c.bound |= n->layers[i].bound != NULL;
        c.mlp |= n->layers[i].fc1.data != NULL;
    }
    return c;
}

/* A layer as a row of a table, for people. */
static json_t *layer_row(const struct neurons *n, int i, struct columns c)
{
    const struct neuron_layer *l = &n->layers[i];
    const int step = (int)lround((double)n->skip_share * (SKIP_STEPS + 1)) - 1;
    double never, often;
    count_extremes(n, i, &never, &often);
    json_t *row = json_pack("{s:i, s:o, s:o, s:o}", "layer", i, "live", decimal(true, (double)l->live), "never",
                            decimal(true, never), "often", decimal(true, often));
    if (n->experts.n)
        add_experts(row, n, i);
    if (c.weight && step >= 0)
        json_object_set_new(row, "skip_below", l->weight ? json_sprintf("%.4g", (double)l->skip[step]) : json_null());
    if (c.bound)
        add_quality(row, "planes", l->bound, &l->planes);
    if (c.mlp) {
        json_object_set_new(row, "mlp_rank", json_integer(l->fc1.data ? (json_int_t)l->fc1.rows : 0));
        json_object_set_new(row, "mlp_bytes", json_integer((json_int_t)mlp_bytes(l)));
        add_quality(row, "mlp", l->fc1.data, &l->mlp);
    }
    return row;
}

static json_t *perplexity(float v) { return v > 0 ? json_real((double)v) : json_null(); }

static json_t *neurons_summary(const struct neurons *n)
{
    const struct {
        const char *name;
        int64_t value;
    } counts[] = {{"experts", n->experts.n}, {"experts_used", n->experts.used}, {"d_expert", n->experts.width},
                  {"d_shared", n->experts.shared}, {"dense_layers", n->experts.dense_layers}};
    enum { SUMMARY_COUNTS = sizeof counts / sizeof *counts };
    char hash[20];
    uint64_t mlp = 0;
    double live = 0;
    for (int i = 0; i < n->n_layers; i++) {
        mlp += mlp_bytes(&n->layers[i]);
        live += (double)n->layers[i].live / n->n_layers;
    }
    snprintf(hash, sizeof hash, "%016" PRIx64, n->model_hash);
    json_t *o = json_pack("{s:s, s:i, s:i, s:I, s:I, s:s, s:I, s:I, s:o, s:f, s:f, s:b, s:b, s:b, s:I, s:s, s:I, s:o, "
                     "s:o, s:o, s:o, s:o}", "architecture", "hearth-neurons", "version", NEURONS_VERSION, "layers",
                     n->n_layers, "d_model", (json_int_t)n->d_model, "d_ff", (json_int_t)n->d_ff, "activation",
                     activation_name(n->activation), "bytes", (json_int_t)gguf_file_bytes(n->file), "tokens",
                     (json_int_t)n->n_tokens, "text", text_json(n->text), "live", live, "skip_share",
                     (double)n->skip_share, "thresholds", neurons_have_weights(n), "planes", neurons_have_bounds(n),
                     "mlp", neurons_have_mlp(n), "mlp_bytes", (json_int_t)mlp, "model_hash", hash, "model_bytes",
                     (json_int_t)n->model_bytes, "perplexity_dense", perplexity(n->perplexity_dense),
                     "perplexity_exact", perplexity(n->perplexity_exact), "perplexity_threshold",
                     perplexity(n->perplexity_threshold), "perplexity_planes", perplexity(n->perplexity_planes),
                     "perplexity_mlp", perplexity(n->perplexity_mlp));
    for (int i = 0; n->experts.n && i < SUMMARY_COUNTS; i++)
        json_object_set_new(o, counts[i].name, json_integer((json_int_t)counts[i].value));
    return o;
}

/* ---- split files ---- */

static json_t *gpuidx_row(const struct gpuidx *x, int i, bool exact)
{
    double share = (double)x->layers[i].n_on_gpu / (double)x->d_ff;
    return json_pack("{s:i, s:I, s:o}", "layer", i, "on_gpu", (json_int_t)x->layers[i].n_on_gpu, "share",
                     exact ? json_real(share) : decimal(true, share));
}

static json_t *gpuidx_summary(const struct gpuidx *x)
{
    int64_t total = 0;
    for (int i = 0; i < x->n_layers; i++)
        total += x->layers[i].n_on_gpu;
    return json_pack("{s:s, s:i, s:I, s:I, s:I, s:I, s:f}", "architecture", "generic.gpu_index", "layers", x->n_layers,
                     "d_ff", (json_int_t)x->d_ff, "bytes", (json_int_t)gguf_file_bytes(x->file), "vram_bytes",
                     (json_int_t)x->vram_bytes, "on_gpu", (json_int_t)total, "share",
                     (double)total / ((double)x->d_ff * x->n_layers));
}

/* ---- both ---- */

/* Takes both over. */
static status print(const char *path, json_t *summary, json_t *layers, int n_layers, int format)
{
    status st = ST_OK;
    if (!summary || !layers || json_array_size(layers) != (size_t)n_layers) {
        st = cannot(path);
    } else if (format == TABLE_JSON) {
        st = json_object_set(summary, "layer", layers) == 0 ? table_print_json(stdout, summary) : cannot(path);
    } else if (format == INSPECT_PEOPLE) {
        inspect_print_summary(summary);
        putchar('\n');
        st = table_print(stdout, layers, TABLE_MD);
    } else {
        st = table_print(stdout, layers, (enum table_format)format);
    }
    json_decref(summary);
    json_decref(layers);
    return st;
}

status inspect_neurons(const char *path, int format)
{
    struct neurons *n;
    status st = neurons_load(path, NULL, &n);
    if (st != ST_OK)
        return st;
    json_t *layers = json_array();
    const struct columns c = columns_of(n);
    for (int i = 0; i < n->n_layers; i++)
        json_array_append_new(layers, format == TABLE_JSON ? layer_json(n, i) : layer_row(n, i, c));
    st = print(path, neurons_summary(n), layers, n->n_layers, format);
    neurons_free(n);
    return st;
}

status inspect_gpuidx(const char *path, int format)
{
    struct gpuidx *x;
    status st = gpuidx_load(path, NULL, &x);
    if (st != ST_OK)
        return st;
    json_t *layers = json_array();
    for (int i = 0; i < x->n_layers; i++)
        json_array_append_new(layers, gpuidx_row(x, i, format == TABLE_JSON));
    st = print(path, gpuidx_summary(x), layers, x->n_layers, format);
    gpuidx_free(x);
    return st;
}
