/* What sets a family of models apart, for model/ alone: a table, and a function where keys decide. A file of
 * model/families/ has one family, or a few kin. */
#ifndef HEARTH_MODEL_FAMILY_H
#define HEARTH_MODEL_FAMILY_H

#include "model/experts.h"
#include "model/keys.h"
#include "model/weights.h"

struct family {
    const char *name;                 /* general.architecture */
    enum { PAIRS, HALVES, LEARNED } positions; /* rotated: neighbours, or a value of each half; or learned */
    enum norm_kind norm;
    bool no_gate, parallel;           /* struct hparams: not has_gate; parallel */
    enum activation activation, sparse_activation; /* in an ordinary file, and in PowerInfer's */
    bool other_activation;            /* an ordinary file means one that hearth does not have */
    bool may_lack_eps;                /* files may leave the norms' epsilon out: 1e-5 */
    const struct expert_family *experts; /* NULL: there are none */

    /* The tensors of a layer. */
    bool attn_norm_2;                 /* where there is one, it is attention's norm in place of attn_norm */
    const char *ffn_norm;             /* its name; NULL: "ffn_norm" */
    bool latent;                      /* struct latent */
    bool gated;                       /* struct hparams */
    bool beta_alpha;                  /* delta nets have both in one */
    bool fused_qkv;                   /* q, k and v are never apart */
    bool fused_gate;                  /* the gate's rows come first in ffn_up */
    enum presence qkv_bias, o_bias, ffn_bias;
    enum presence head_norms;         /* of q and k, head by head */
    bool whole_norms;                 /* or before they are heads */
    bool post_norms;                  /* post_attention_norm and post_ffw_norm, of what is added to x */
    bool no_norms;                    /* attention and FFN read x itself */
    bool sinks;
    bool predictors;                  /* blocks behind the layers that predict further tokens, which nothing here
                                       * runs */
    bool rope_factors;                /* the model may have rope_freqs, or rope_factors_long and _short */
    bool tied;                        /* the output matrix is always the embedding */

    status (*read)(const struct keys *k, struct hparams *hp); /* what keys of its own say; NULL: it has none */
};

extern const struct family family_llama, family_mistral3, family_smollm3, family_granite, family_bamboo, family_qwen2,
    family_qwen3, family_qwen2moe, family_qwen3moe, family_qwen3next, family_qwen35, family_qwen35moe, family_gpt_oss,
    family_glm4moe, family_deepseek2, family_smallthinker, family_gemma2, family_gemma3, family_phi3, family_olmo2,
    family_falcon, family_opt;

/* The file's family. ST_FORMAT, ST_UNSUPPORTED (logged). */
status family_of(const struct gguf *g, const struct family **out);

#endif
