/* hearth-synth's parts: GGUF models of random weights in the shape of a known model, for benchmarks and tests.
 *
 * Speed does not depend on what weights say, only on their shape, their type and, where only neurons that fire are
 * computed, on how often they fire. A model whose FFN is of the ReLU kind is made so that each neuron fires with a
 * chosen probability in a real forward pass:
 *
 *   - Some columns of the residual stream are the same for every token (the embedding writes them; the rows of the
 *     attention's and the FFN's output that would change them are zero). In a gate's row they carry the neuron's bias
 *     b, in a quantisation group of their own. A model with biases (OPT) has b there instead.
 *   - The rest of the row is random and gives a normal number of deviation s: the neuron fires with probability
 *     p = Phi(b / s). Over the neurons of a layer p is a power law, in random order, whose mean is the live share.
 *   - In trained models a small network can tell which neurons fire. Here DECIDING columns bear DECIDING_SHARE of the
 *     random part's variance, the other columns the rest: a predictor of that rank is right but for a few.
 *   - What attention and FFNs add to the residual stream is small (ADDED a time), so each layer's s is known nearly;
 *     what is still wrong is measured in a forward pass and set right in the weights of the layer's norm. */
#ifndef HEARTH_TOOLS_SYNTH_SYNTH_H
#define HEARTH_TOOLS_SYNTH_SYNTH_H

#include <stdbool.h>
#include <stdint.h>
#include "base/dtype.h"
#include "base/status.h"

enum {
    DECIDING = 64,   /* columns that nearly decide who fires: columns GROUP to GROUP + DECIDING - 1 */
    MAX_LAYERS = 1000
};
#define DECIDING_SHARE 0.98f /* of a gate's variance comes from them */
#define ADDED 0.1f           /* deviation of what attention or FFN adds to the residual stream, which starts with 1 */

enum architecture {
    LLAMA,
    OPT,      /* LayerNorm, biases, learned positions, no gate */
    QWEN3MOE, /* experts, norms of query and key heads */
    GPT_OSS,  /* experts, biases, sinks */
    QWEN3NEXT /* experts and as many shared neurons as one has; gated attention, between it delta nets: */
};

enum { NET_INTERVAL = 4, NET_KEY_HEADS = 16, NET_VALUE_HEADS = 32, NET_SIZE = 128, NET_TAPS = 4, NET_TURNED = 64 };

struct shape {
    const char *name;
    enum architecture architecture;
    uint32_t layers, d_model, d_ff, heads, kv_heads, head_dim, vocab, context;
    float rope_base;
    bool tied;         /* the output matrix is the embedding */
    float rope_factor; /* Llama 3's stretching of low frequencies, 0: none */
    uint32_t experts, experts_used; /* of d_ff neurons each; 0: none */
};

struct weight_type {
    const char *name;
    enum dtype body;   /* every matrix but the one that makes the logits */
    enum dtype output; /* that one: llama.cpp's K mixes keep it in Q6_K */
    enum dtype beside; /* experts of `body`: the others */
    uint32_t file_type; /* llama.cpp's general.file_type */
};

enum ffn {
    FFN_SILU,  /* silu(gate) * up, every neuron counts */
    FFN_REGLU, /* relu(gate) * up */
    FFN_DRELU, /* relu(gate) * relu(up) */
    FFN_RELU,  /* relu(up), opt only */
    FFNS
};

struct synth_options {
    const struct shape *shape;
    const struct weight_type *type;
    enum ffn ffn;
    uint32_t layers;
    uint64_t seed;
    const char *path;
    float live; /* share of neurons that fire, mean over neurons and tokens; above 0, 1: all; not for FFN_SILU */
    float skew; /* exponent of the power law, 0: all neurons alike */
    bool header_only; /* a file of the right size that has no weights */
};

/* NULL: none of this name. */
const struct shape *shape_of(const char *name);
const struct weight_type *weight_type_of(const char *name);
const char *ffn_name(enum ffn f); /* "reglu" */

/* Where a layer's norm lies in the file, whose weights set its live share. */
struct norm_place {
    uint64_t at; /* byte of the file */
    float level; /* struct synth_file */
};

/* What synth_write wrote. */
struct synth_file {
    uint64_t bytes;
    struct norm_place *norms; /* [layers] of the FFNs, NULL: FFN_SILU; malloc'ed */
};

/* Writes the model. ST_IO, ST_NOMEM, ST_USAGE where rows of the shape are no whole blocks of the type (logged); half a
 * file is removed. The same options write the same file. */
status synth_write(const struct synth_options *o, struct synth_file *out);

/* What a forward pass showed of a layer. */
struct layer_measure {
    double live;   /* share of the activations that are not zero */
    double spread; /* deviation of the random part of a gate over that of its bias, which should be 1 */
};

/* Runs some random tokens through the model in `path`. ST_NOMEM and whatever the engine reports. */
status synth_measure(const struct synth_options *o, struct layer_measure *layers /* [o->layers] */);
/* Measures, and corrects the norms in the file until the spread is right everywhere. */
status synth_calibrate(const struct synth_options *o, struct synth_file *file, struct layer_measure *layers);

#endif
