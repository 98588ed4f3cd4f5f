/* A model as the rest of hearth sees it: hyper-parameters and weights as views into the mapped file.
 * Immutable after model_load; thread-safe to read. */
#ifndef HEARTH_MODEL_MODEL_H
#define HEARTH_MODEL_MODEL_H

#include <stdbool.h>
#include <stdint.h>
#include "base/activation.h"
#include "base/dtype.h"
#include "base/status.h"
#include "model/gguf.h"

struct family;

enum norm_kind { NORM_RMS, NORM_LAYER }; /* kernels.h: rms_norm, layer_norm */

/* What a router makes of its logits, one for each expert: the scores by which experts are chosen, and their weights. */
enum router_score {
    ROUTER_SOFTMAX, /* over all experts (Shazeer et al., 2017) */
    ROUTER_SIGMOID, /* DeepSeek-V3, 2024 */
    ROUTER_CHOSEN   /* the logits themselves; weights are the softmax over the chosen ones (gpt-oss) */
};

enum { MOST_EXPERT_GROUPS = 64 };

struct router {
    enum router_score score;
    bool normed;            /* weights are divided by their sum */
    bool early;             /* it reads x as it is before the layer's attention, not normed (SmallThinker) */
    float scale;            /* then multiplied by this; 1: not */
    int64_t n_groups;       /* consecutive experts, as many each: only those of the n_groups_used groups count whose
                             * two */
    int64_t n_groups_used;  /* best scores have the largest sums; 1 and 1: not grouped */
};

/* How positions turn (Su et al., RoFormer, 2021). */
struct rope {
    double base;             /* pair i turns by base^(-2i / n_rot) a position; 0: there is no such rope */
    double scale;            /* times this (linear scaling: Chen et al., 2023); 1: not */
    bool yarn;               /* fully so only what turns at most beta_slow times within the original context, and not
                              * at */
    double beta_fast, beta_slow; /* all what turns beta_fast times (Peng et al., YaRN, 2023) */
    double magnitude;        /* of cosines and sines; 1 normally */
};

/* Latent attention (DeepSeek-V2, 2024), in its absorbed form. Of a token a latent vector c and one turned key are kept,
 * which all heads share: each brings its queries into the space of c, and what it mixes of c back into its values. So
 * what is cut over holders is query heads, and each holder keeps all of c. */
struct latent {
    int64_t rank;            /* of c; 0: keys and values are plain */
    int64_t q_rank;          /* queries come through a vector of so many values; 0: they do not */
};

/* Gated delta nets (Yang et al., 2024), which have a state in place of keys and values. Each value head has a matrix S
 * of `size` times `size` values, which forgets, is corrected towards the token's value where its key points, and read
 * where its query points; value heads share the queries and keys of a key head. What is cut over holders is key heads,
 * each with its value heads. Queries, keys and values have gone through a convolution over the last `taps` tokens. */
struct delta_net {
    int64_t key_heads;       /* 0: no layer has such a net */
    int64_t value_heads;     /* a multiple of key_heads */
    int64_t size;            /* of a head's key, and of its value; a multiple of 16 */
    int64_t taps;
    bool in_turn;            /* value heads take the key heads in turn: j has key head j % key_heads; else those of a
                              * key head follow each other */
};

enum { MOST_TAPS = 8 };

enum layer_kind { LAYER_ATTENTION, LAYER_DELTA };

/* What layers differ in. */
struct layer_shape {
    enum layer_kind kind;
    bool slides;             /* its attention sees hp.window tokens; else all */
    int8_t rope;             /* which of hp.rope; NO_ROPE: nothing turns */
};

enum { MODEL_ROPES = 2, NO_ROPE = -1, MOST_LAYERS = 1024 };

struct hparams {
    const struct family *family; /* model/ alone looks into it */
    const char *arch_name;   /* "llama" */
    int n_layers;
    int n_predictors;        /* blocks behind them that predict further tokens: nobody reads these */
    int64_t d_model;
    int64_t d_ff;            /* neurons of a layer, of all its experts together; where layers differ, the most */
    int64_t n_experts;       /* of a layer that has any; 0: no layer has */
    int64_t n_experts_used;  /* by a token */
    int64_t d_expert;        /* neurons of one */
    int64_t d_shared;        /* neurons beside them, for all tokens */
    bool shared_routed;      /* weighed by a router of their own */
    int n_dense_layers;      /* the first layers, which have no experts though others do, */
    int64_t d_dense;         /* but so many neurons */
    struct router router;
    enum activation activation; /* what the file or its architecture says; whoever knows better may change it */
    bool activation_known;   /* false: the model's own activation (Falcon's GELU) is none of hearth's */
    bool has_gate;           /* false: a neuron is f(up) (OPT, Falcon) */
    bool parallel;           /* x += attention(norm(x)) + ffn(norm(x)): both read the layer's input (Falcon) */
    enum norm_kind norm;
    int64_t n_heads;         /* query heads */
    int64_t n_kv_heads;      /* n_heads is a multiple of it */
    int64_t head_dim;        /* of queries and keys; of latent ones the last n_rot are turned */
    int64_t value_dim;       /* of what a query head gives the output projection; head_dim, but of latent attention */
    struct latent latent;
    struct delta_net delta;
    bool gated;              /* what a query head gives is multiplied by the sigmoid of a gate, whose rows follow the
                              * head's */
    int64_t n_rot;           /* rotated values of a head, even, <= head_dim; 0: positions are learned (OPT) */
    bool rope_neox;          /* pairs (i, i + n_rot/2) instead of (2i, 2i+1) */
    struct rope rope[MODEL_ROPES]; /* the second of layers that slide, where these have one of their own */
    float attn_scale;        /* of scores; 1 / sqrt(head_dim) normally */
    float attn_softcap, logit_softcap; /* a score, a logit s becomes softcap * tanh(s / softcap); 0: stays */
    float embedding_scale, residual_scale, logit_scale; /* of embeddings, of what blocks add to x, of logits; 1
                                                         * normally */
    float temper;            /* a query at p is multiplied by 1 + temper * ln(1 + floor(p / temper_every)); 0: not */
    int64_t temper_every;
    bool whole_norms;        /* q and k are normed before they are heads: then these cannot be cut */
    int64_t rope_original;   /* the context that a model with scaled positions was trained with before */
    float norm_eps;
    int64_t window;          /* of layers that slide, in tokens; 0: no layer does */
    struct layer_shape layer[MOST_LAYERS];
    int64_t position_offset; /* position p of a text has row p + this of the learned positions */
    int64_t n_vocab;
    int64_t n_ctx_train;
    float sparse_threshold;  /* PowerInfer files: a neuron is skipped where its logit is less */
};

/* A matrix as it lies in the file: y[rows] = W[rows, cols] x[cols]; row-major, cols fastest. data NULL: absent. */
struct matrix {
    enum dtype type;
    int64_t rows, cols;
    const uint8_t *data;     /* [rows, cols] of `type` */
    const char *name;
};

/* Neurons of a layer that belong together: all of a layer without experts, or those of an expert, or those beside the
 * experts that all tokens share. A layer's neurons are numbered through its bundles: experts first, in their order. */
struct bundle {
    int64_t first, n;        /* [first, first + n) of the layer's neurons */
    bool routed;             /* an expert: computed for the tokens that have chosen it; else for all */
    struct matrix gate, up;  /* [n, d_model]; gate absent where !has_gate */
    struct matrix gate_bias, up_bias; /* [1, n]; may be absent */
    struct matrix down;      /* [d_model, n] */
    struct matrix down_t;    /* PowerInfer's transposed down [n, d_model] in place of down */
};

/* attn_norm is what attention reads, ffn_norm what the FFN reads, whatever the file calls them. */
struct layer_weights {
    struct matrix attn_norm, attn_norm_bias; /* [1, d_model]; absent: attention reads x itself; a bias only of
                                              * NORM_LAYER */
    struct matrix q, k, v;           /* [n_heads * head_dim, d_model], [n_kv_heads * head_dim, d_model] twice; of one
                                        tensor where the file has them fused; of gated attention q has for each head
                                        its queries' rows, then its gates' */
    struct matrix q_bias, k_bias, v_bias; /* [1, rows of q, k, v]; qwen2, opt (and some llama) */
    struct matrix q_norm, k_norm;    /* [1, head_dim], or of whole_norms [1, rows of q, k]; may be absent */
    struct matrix sinks;             /* [1, n_heads] scores of no position, which take weight from all (Xiao et al.,
                                        2023; gpt-oss); may be absent */
    struct matrix o;                 /* [d_model, n_heads * value_dim], of a delta net [d_model, value_heads * size] */
    /* Of delta nets, which have none of the others but o. */
    struct matrix qkv;               /* [(2 key_heads + value_heads) * size, d_model] */
    struct matrix z;                 /* [value_heads * size, d_model] gates of what the heads give */
    struct matrix beta, alpha;       /* [value_heads, d_model] how much a head learns, and forgets; */
    struct matrix beta_alpha;        /* or [2 value_heads, d_model]: of each key head beta, then alpha, of its value
                                      * heads */
    struct matrix taps;              /* [rows of qkv, taps] of the convolution, the newest token's last */
    struct matrix dt_bias, decay;    /* [1, value_heads] S is multiplied by exp(decay * softplus(alpha + dt_bias)) */
    struct matrix head_norm;         /* [1, size] */
    /* Of latent attention; v is absent, k makes c and the turned key [rank + n_rot, d_model], q may read q_low's. */
    struct matrix q_low, q_low_norm; /* [q_rank, d_model], [1, q_rank]; absent: q [n_heads * head_dim, d_model] */
    struct matrix c_norm;            /* [1, rank] */
    struct matrix q_in;              /* [n_heads * rank, head_dim - n_rot] each head's queries into the space of c */
    struct matrix c_out;             /* [n_heads * value_dim, rank] what each mixes of c into values */
    struct matrix c_both;            /* [n_heads * (head_dim - n_rot + value_dim), rank] in place of both (files of
                                      * before 2025-04): of each head what turns c into its plain keys, then into its
                                      * values */
    struct matrix o_bias;            /* [1, d_model]; may be absent */
    struct matrix ffn_norm, ffn_norm_bias; /* [1, d_model]; as attn_norm */
    struct matrix attn_post_norm, ffn_post_norm; /* [1, d_model] of what is added to x; may be absent */
    struct bundle *bundles;          /* [n_bundles] views; experts in their order, then what is shared */
    int n_bundles;                   /* 1: no experts; then the same as the following. Experts have the same types */
    struct matrix router, router_bias; /* [n_experts, d_model], [1, n_experts]; absent where there are no experts */
    struct matrix choice_bias;       /* [1, n_experts] added to scores for choosing alone; may be absent */
    struct matrix shared_router;     /* [1, d_model] its product's sigmoid is the weight of what is shared; or absent */
    struct matrix expert_down_bias;  /* [n_experts, d_model]; may be absent */
    struct matrix gate, gate_bias;   /* [d_ff, d_model], [1, d_ff]; absent where !has_gate; the bias may be */
    struct matrix up, up_bias;       /* [d_ff, d_model], [1, d_ff]; the bias may be absent */
    struct matrix down, down_bias;   /* [d_model, d_ff], [1, d_model]; the bias may be absent */
    struct matrix down_t;            /* PowerInfer's transposed down [d_ff, d_model] in place of down */
    struct matrix fc1, fc2;          /* PowerInfer's predictor [r, d_model], [d_ff, r], r free per layer; or absent */
};

struct model {
    struct gguf *file;               /* owned */
    struct hparams hp;
    struct matrix embedding;         /* [n_vocab, d_model] */
    struct matrix positions;         /* [n_ctx_train + position_offset, d_model] learned; absent where n_rot > 0 */
    struct matrix out_norm, out_norm_bias; /* [1, d_model] */
    struct matrix output;            /* [n_vocab, d_model]; a view of embedding where the file ties them */
    struct matrix rope_factors;      /* [1, n_rot/2] f32 that pairs turn more slowly by; Llama 3 */
    struct matrix rope_long, rope_short; /* the same (LongRoPE): where more than the original context is asked for; or
                                          * not */
    struct layer_weights *layers;    /* [n_layers] */
    struct bundle *bundles;          /* owned: of all layers */
};

/* Weights that a token has in a layer with experts: those of its experts, and where what is shared has a router of its
 * own, last, of that. */
static inline int64_t model_route_weights(const struct hparams *hp) { return hp->n_experts_used + hp->shared_routed; }
/* Neurons of a layer, of all its bundles together. */
int64_t model_layer_neurons(const struct model *m, int layer);
/* Whether neurons with gates have biases, of gate or up, in any layer. */
bool model_has_biased_gates(const struct model *m);
/* Whether a layer has experts. */
static inline bool model_has_experts(const struct model *m, int layer) { return m->layers[layer].n_bundles > 1; }

/* Opens `path`, reads the hyper-parameters, finds every tensor and checks its shape and type. ST_UNSUPPORTED names an
 * unknown architecture or type, ST_FORMAT a wrong or missing key or tensor (name, expected and actual shape); ST_IO,
 * ST_NOMEM as gguf_open. All are logged. model_free gives it back. */
status model_load(const char *path, struct model **out);
/* The same over an open file, which then belongs to the model, also on failure. */
status model_from_gguf(struct gguf *g, struct model **out);
void model_free(struct model *m); /* NULL is fine */

/* How far each pair of a rope turns a position, in radians, where a context of n_ctx tokens was asked for. */
void model_rope_freqs(const struct model *m, const struct rope *r, int64_t n_ctx, double *freq /* [n_rot / 2] */);
/* What queries at a position are multiplied by. */
float model_temper(const struct hparams *hp, int64_t position);
/* The window of a layer in tokens, 0: none. */
static inline int64_t model_window(const struct hparams *hp, int layer)
{
    return hp->layer[layer].slides ? hp->window : 0;
}

/* The boundaries of neuron shards lie on multiples of this, except for the end at d_ff: SUM_SEGMENT, or the block along
 * the neurons of any layer's down projection if that is larger (256 for K types). Blocks of a transposed down
 * projection run across the neurons and do not count. */
int64_t model_neuron_unit(const struct model *m);

/* The heads of a layer that are cut over holders: KV heads, each with the query heads that share it; of a delta net key
 * heads, with their value heads. */
static inline int64_t model_heads(const struct hparams *hp, int layer)
{
    return hp->layer[layer].kind == LAYER_DELTA ? hp->delta.key_heads : hp->n_kv_heads;
}
/* Columns of the layer's output projection that follow each other and are of one of those heads. */
static inline int64_t model_head_columns(const struct hparams *hp, int layer)
{
    const struct delta_net *n = &hp->delta;
    if (hp->layer[layer].kind == LAYER_DELTA)
        return n->in_turn ? n->size : n->value_heads / n->key_heads * n->size;
    return hp->n_heads / hp->n_kv_heads * hp->value_dim;
}
/* Layers that are delta nets, and bytes of a text's state in each of them, f32. */
int model_n_nets(const struct hparams *hp);
static inline int64_t model_state_bytes(const struct hparams *hp)
{
    const struct delta_net *n = &hp->delta;
    return 4 * n->size * (n->value_heads * n->size + (n->taps - 1) * (2 * n->key_heads + n->value_heads));
}
/* Boundaries of shards of a layer's heads lie on multiples of this: so many that the columns of the output projection
 * of any layer of its kind which belong to them are whole blocks (32 columns as activations are quantised, 256 of a K
 * type). The number of heads is a multiple of it; if it is that, the heads cannot be cut. */
int64_t model_head_unit(const struct model *m, int layer);

#endif
