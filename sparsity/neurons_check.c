/* What a neuron file holds, and which values of it are right; the same for reading and writing. */
#include "sparsity/neurons_file.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "base/log.h"

enum { MAX_RANK = 1 << 16 /* of an MLP, far beyond any real one */ };

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
    {NEURONS_KEY("mlp.threshold"), AT(mlp_threshold), 1, RANGE_BOUND},
    {NEURONS_KEY("mlp.recall"), AT(mlp.recall), 1, RANGE_SHARE},
    {NEURONS_KEY("mlp.precision"), AT(mlp.precision), 1, RANGE_SHARE},
    {NEURONS_KEY("mlp.accuracy"), AT(mlp.accuracy), 1, RANGE_SHARE},
    {NEURONS_KEY("mlp.flagged"), AT(mlp.flagged), 1, RANGE_SHARE},
    {0},
};
const struct neurons_array neurons_arrays[NEURONS_ARRAYS] = {
    {"fired", AT(fired), true, RANGE_SHARE, PER_NEURON},
    {"strength", AT(strength), true, RANGE_POSITIVE, PER_NEURON},
    {"chosen", AT(chosen), true, RANGE_SHARE, PER_EXPERT},
    {"weight", AT(weight), false, RANGE_POSITIVE, PER_NEURON},
    {"bound", AT(bound), false, RANGE_BOUND, PER_NEURON},
    {"gate_slope", AT(gate_slope), false, RANGE_FINITE, PER_NEURON},
    {"gate_offset", AT(gate_offset), false, RANGE_FINITE, PER_NEURON},
    {"up_slope", AT(up_slope), false, RANGE_FINITE, PER_NEURON},
    {"up_offset", AT(up_offset), false, RANGE_FINITE, PER_NEURON},
};
#undef AT
#define AT(field) offsetof(struct neurons, experts.field)
const struct neurons_count neurons_counts[NEURONS_COUNTS] = {
    {NEURONS_KEY("experts"), AT(n)},
    {NEURONS_KEY("experts_used"), AT(used)},
    {NEURONS_KEY("d_expert"), AT(width)},
    {NEURONS_KEY("d_shared"), AT(shared)},
    {NEURONS_KEY("dense_layers"), AT(dense_layers)},
    {NEURONS_KEY("d_dense"), AT(dense)},
};
#undef AT

int64_t neurons_array_length(const struct neurons *n, int layer, const struct neurons_array *a)
{
    return a->length == PER_EXPERT ? neurons_experts(n, layer) : neurons_of_layer(n, layer);
}

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
    switch (r) {
    case RANGE_SHARE: return v >= 0 && v <= 1;
    case RANGE_POSITIVE: return v >= 0 && v <= FLT_MAX;
    case RANGE_FINITE: return fabsf(v) <= FLT_MAX;
    default: return !isnan(v);
    }
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
    const int64_t neurons = neurons_of_layer(n, layer);
    if (!fc1->data != !fc2->data) {
        log_error("%s: layer %d: expected the MLP's fc1 and fc2 or neither, found %s alone", where, layer,
                  fc1->data ? "fc1" : "fc2");
        return code;
    }
    if (fc1->data && (fc1->cols != n->d_model || fc2->rows != neurons || fc1->rows != fc2->cols || fc1->rows < 1 ||
                      fc1->rows > MAX_RANK || fc2->cols % dtype_block(fc2->type) ||
                      fc1->cols % dtype_block(fc1->type))) {
        log_error("%s: layer %d: expected an MLP of fc1 [%" PRId64 ", r], fc2 [r, %" PRId64 "], r at most %d, found [%"
                  PRId64 ", %" PRId64 "] %s, [%" PRId64 ", %" PRId64 "] %s", where, layer, n->d_model, neurons,
                  MAX_RANK, fc1->cols, fc1->rows, dtype_name(fc1->type), fc2->cols, fc2->rows, dtype_name(fc2->type));
        return code;
    }
    return ST_OK;
}

/* A neuron can fire where its expert is chosen, and nowhere else. */
static status check_chosen(const struct neurons *n, int layer, const char *where, status code)
{
    const struct neuron_layer *l = &n->layers[layer];
    for (int64_t i = 0; l->chosen && i < neurons_of_layer(n, layer); i++) {
        const int64_t e = neurons_expert_of(n, layer, i);
        if (e >= 0 && l->fired[i] > l->chosen[e]) {
            log_error("%s: tensor blk.%d.fired: expected at most %g at %" PRId64 ", as often as expert %" PRId64
                      " is chosen, found %g", where, layer, (double)l->chosen[e], i, e, (double)l->fired[i]);
            return code;
        }
    }
    return ST_OK;
}

static status check_layer(const struct neurons *n, int layer, const char *where, status code)
{
    const struct neuron_layer *l = &n->layers[layer];
    for (const struct neurons_array *a = neurons_arrays; a < neurons_arrays + NEURONS_ARRAYS; a++) {
        const float *v = neurons_array_of(l, a);
        const int64_t length = neurons_array_length(n, layer, a);
        if (!v && a->required && length) {
            log_error("%s: tensor blk.%d.%s: expected one, found none", where, layer, a->name);
            return code;
        }
        for (int64_t i = 0; v && i < length; i++) {
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
    s = s == ST_OK ? check_chosen(n, layer, where, code) : s;
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
