/* From samples of one layer to that layer's part of the neuron file: statistics, thresholds, predictors.
 *
 * What the engine will compute is what is fitted: gate and up of the samples come from the kernels, on activations
 * quantised as the engine quantises them, and a predictor is calibrated by running it as the engine will. The same
 * sample, options and seed give the same bytes on the same machine.
 *
 * Everything is thread-safe as long as outputs differ. */
#ifndef HEARTH_SPARSITY_FIT_FIT_H
#define HEARTH_SPARSITY_FIT_FIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/activation.h"
#include "base/status.h"
#include "kernels/kernels.h"
#include "model/model.h"
#include "sparsity/neurons.h"

enum {
    FIT_MIN_SAMPLES = 256, /* fewer fit nothing; a quarter of them at least is kept to validate */
    FIT_MIN_CHOSEN = 64,   /* of an expert, whose neurons' estimates count as they are if fewer have chosen it */
    SKIP_POINTS = 200      /* points of a layer's skip curve: 0, 0.5, ... 99.5 % skipped */
};

/* What was seen of one layer. */
struct layer_sample {
    const struct model *model;
    int layer;
    enum activation activation;
    int64_t n, n_fit;      /* samples; the first n_fit fit, the rest validate: another part of the text */
    const float *x;        /* [n, d_model] FFN inputs, after the norm */
    const uint32_t *expert; /* [n, n_experts_used] that they have chosen; NULL: the layer has none */
    const float *weight;   /* [n, model_route_weights] theirs */
    const uint32_t *fired; /* [the layer's neurons] tokens for which a neuron fired, of n_tokens */
    const double *sum;     /* [the layer's neurons] sum of |activation| over n_tokens */
    const uint32_t *chosen; /* [n_experts] tokens that have chosen each expert, of n_tokens */
    uint64_t n_tokens;     /* counted; not only the samples */
};

struct fit_options {
    float miss;             /* planes: share of the activations that may be missed */
    float recall, accuracy; /* MLP: it grows until both are met */
    uint64_t mlp_bytes;     /* most bytes of this layer's MLP; 0: none is trained */
    int epochs;             /* passes over the samples, in the training of an MLP */
    uint64_t seed;
    int n_threads;
    const struct kernels *kernels;
    /* Called now and then with the share of the layer's work that is done; false cancels. May be NULL. */
    bool (*progress)(void *arg, float done);
    void *progress_arg;
};

/* How much a layer's output loses when its neurons of lowest score are skipped, score = |estimated activation| *
 * weight. All zero where nothing is approximate. */
struct skip_curve {
    float score[SKIP_POINTS]; /* that i / SKIP_POINTS of the neurons are below */
    float loss[SKIP_POINTS];  /* mean squared error of the FFN's output then */
    float size;               /* squared size of what a bundle gives a token, the median */
};

/* A layer of the neuron file with what it points to, which it owns. */
struct fitted_layer {
    struct neuron_layer layer; /* `planes`, `mlp` in it only where the activation is exact; skip only after fit_skip */
    struct skip_curve curve;
    int64_t d_model, n;       /* n: the layer's neurons */
    int64_t n_experts;        /* 0: it has none */
    void *memory;
};

/* 0.02 missed, .95, .95, no MLP, seed 1, one thread, the fastest kernels. ST_USAGE: no kernels (logged). */
status fit_defaults(struct fit_options *out);

/* Fits one layer. ST_USAGE (too few samples, says how many are needed), ST_NOMEM (both logged), ST_CANCELLED. */
status fit_layer(const struct layer_sample *s, const struct fit_options *o, struct fitted_layer *out);
void fitted_layer_free(struct fitted_layer *f); /* of zeroed memory is fine */

/* Sets skip[] of all layers of a model, for each share over the model: the same share of every layer. (Shares that make
 * the sum of squared errors least, each relative to the residual stream or to the FFN's own output, were worse by
 * perplexity: they skip too much in the last layers or in the first.) `layers` [n]. Cannot fail. */
void fit_skip(struct fitted_layer *layers, int n);

/* Parts `total` bytes over the layers' MLPs by how much there is to predict: the sum over a layer's neurons of the
 * entropy of firing. fired [n_layers] of [d_ff]; bytes [n_layers]. */
void fit_mlp_bytes(const uint32_t *const *fired, int n_layers, int64_t d_ff, uint64_t n_tokens, uint64_t total,
                   uint64_t *bytes);

/* A fitted layer as bytes, for a checkpoint or a message, guarded by a hash. encode: malloc'ed, ST_NOMEM (logged).
 * decode: ST_FORMAT (logged, naming `where`) unless the bytes are whole, unchanged, and of the dimensions that *out
 * has. */
status fitted_layer_encode(const struct fitted_layer *f, uint8_t **bytes, size_t *n);
status fitted_layer_decode(const uint8_t *bytes, size_t n, const char *where, struct fitted_layer *out);

#endif
