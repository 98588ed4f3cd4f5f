/* The neuron file, MODEL.neurons.gguf: what `hearth prepare` measured of a model's neurons, beside the untouched model.
 *
 * A GGUF file of its own (general.architecture "hearth-neurons"), versioned, bound to its model by that file's hash,
 * and guarded by a checksum over all of it: a truncated file or a flipped bit is refused. Immutable after loading, so
 * all readers are thread-safe. Format: docs/neuron-file.md. */
#ifndef HEARTH_SPARSITY_NEURONS_H
#define HEARTH_SPARSITY_NEURONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/activation.h"
#include "base/status.h"
#include "model/model.h"

enum {
    NEURONS_VERSION = 1,
    NEURONS_CHECKSUM_AT = 113, /* the byte at which the checksum's eight lie */
    EXPERT_RARE = 100,
    SKIP_STEPS = 9 /* thresholds for 10, 20, ... 90 % of all neurons skipped, over the model */
};

/* How well a predictor did on tokens that it was not fitted on; each in [0, 1], 0 where there is no such predictor. A
 * share of nothing (the recall where no neuron fires) is 1. */
struct predictor_quality {
    float recall;    /* of the neurons that fire, the share it flags */
    float precision; /* of the neurons it flags, the share that fires */
    float accuracy;  /* of all, the share it decides rightly */
    float flagged;   /* of all, the share it flags */
};

/* A layer. Arrays are [the layer's neurons] f32 unless said otherwise, into the file or whoever made them; NULL: not
 * there (`fired` and `strength` always are). Numbers are finite and not negative, but for bound and mlp_threshold:
 * these may be negative, or infinite where nothing (or all) is to be flagged. Shares and means are over all tokens; an
 * expert's neuron is zero for those that have not chosen the expert, and fired for fired / chosen of those that
 * have. */
struct neuron_layer {
    const float *fired;      /* share of tokens for which the neuron fired (its activation is not zero; SiLU:
                              * |activation| above a tenth of the layer's mean) */
    const float *strength;   /* mean |activation|, the expert's weight included */
    const float *chosen;     /* [n_experts] share of tokens that have chosen the expert; NULL: the layer has none */
    float live;              /* share that fires of the neurons that tokens look at: of all, or of the experts that they
                              * have chosen and of those that are shared */

    /* threshold: a neuron is skipped where |estimated activation| * weight < skip[i]. The activation is estimated from
     * gate_slope * estimate of the gate + gate_offset, and up likewise (NULL: 1 and 0). */
    const float *weight;
    const float *gate_slope, *gate_offset, *up_slope, *up_offset;
    float skip[SKIP_STEPS];

    /* predicted by the top bits of the gate (of up, in a layer without a gate): flagged where estimate > bound */
    const float *bound;
    struct predictor_quality planes;

    /* predicted by an MLP (Song et al., PowerInfer, 2024): flagged where fc2 relu(fc1 x) >= mlp_threshold; data NULL:
     * none */
    struct matrix fc1;       /* [r, d_model] */
    struct matrix fc2;       /* [d_ff, r] */
    float mlp_threshold;
    struct predictor_quality mlp;
};

struct neurons {
    struct gguf *file;       /* owned; NULL: made in memory */
    enum activation activation;
    int n_layers;
    int64_t d_model, d_ff;   /* d_ff: neurons of a layer; where layers differ, the most */
    struct {
        int64_t n, used;     /* experts of a layer, of a token; 0: no layer has any, and all have d_ff neurons */
        int64_t width, shared; /* neurons of one, and beside them all */
        int64_t dense_layers, dense; /* the first layers, which have none, and their neurons */
    } experts;
    uint64_t model_hash;     /* gguf_hash of the model */
    uint64_t model_bytes;    /* gguf_file_bytes of the model; for people */
    uint64_t n_tokens;       /* counted */
    float skip_share;        /* the share that `threshold` skips unless told, a multiple of 0.1 */
    /* 0: not measured */
    float perplexity_dense, perplexity_exact, perplexity_threshold, perplexity_planes, perplexity_mlp;
    char text[64];           /* the name of the text they were measured on */
    struct neuron_layer *layers; /* [n_layers] */
};

/* Neurons of a layer, and experts; 0: it has none. */
int64_t neurons_of_layer(const struct neurons *n, int layer);
int64_t neurons_experts(const struct neurons *n, int layer);
/* The expert that a neuron of a layer is of; -1: none. */
int64_t neurons_expert_of(const struct neurons *n, int layer, int64_t neuron);
/* The share of tokens that look at a neuron of a layer: all, or of an expert those that have chosen it. */
float neurons_looked_at(const struct neurons *n, int layer, int64_t neuron);
/* How many tokens have chosen an expert, and of its neurons the share that fires for one of them. */
uint64_t neurons_expert_tokens(const struct neurons *n, int layer, int64_t expert);
double neurons_expert_live(const struct neurons *n, int layer, int64_t expert);

/* Tokens that have chosen the experts of a layer. */
struct expert_use {
    uint64_t least, most; /* of one */
    int64_t rare;         /* experts of fewer tokens than EXPERT_RARE: what is said of their neurons is a guess */
};
struct expert_use neurons_expert_use(const struct neurons *n, int layer); /* all 0: it has none */
/* How the neurons of a model lie, as far as a neuron file says it: d_model, d_ff, layers and experts. */
void neurons_shape_of(const struct model *m, struct neurons *out);

/* Where a model's neuron file lies: "DIR/NAME.gguf" -> "DIR/NAME.neurons.gguf" (of a split model without the part's
 * number). malloc'ed; NULL if out of memory. */
char *neurons_path(const char *model_path);

/* Reads and checks a neuron file. model NULL: whichever it was made for. ST_IO, ST_FORMAT (truncated, changed, wrong
 * shapes or values), ST_UNSUPPORTED (another version), ST_MISMATCH (another model: the line says how to make a new
 * one), ST_NOMEM; all logged. */
status neurons_load(const char *path, const struct model *model, struct neurons **out);
/* The same over bytes in memory, not copied, aligned to 8; for tests and fuzzing. */
status neurons_parse(const uint8_t *bytes, size_t n, const char *where, const struct model *model,
                     struct neurons **out);
void neurons_free(struct neurons *n); /* NULL is fine; frees what neurons_load made */

/* Whether a file that begins so is meant as a neuron file, though it may be damaged. */
bool neurons_begin(const uint8_t *bytes, size_t n);
/* Whether an open file says that it is a neuron file. */
bool neurons_is_file(const struct gguf *g);
/* xxh3 (64 bits) of a neuron file's bytes, those of the checksum taken as zero. n > NEURONS_CHECKSUM_AT + 8. */
uint64_t neurons_checksum(const uint8_t *bytes, size_t n);

/* Whether every layer has what the mode needs: a weight for each neuron, a bound, an MLP. n NULL: no. */
bool neurons_have_weights(const struct neurons *n);
bool neurons_have_bounds(const struct neurons *n);
bool neurons_have_mlp(const struct neurons *n);

#endif
