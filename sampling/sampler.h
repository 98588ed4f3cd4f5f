/* From logits to one token. The same logits, parameters and text give the same token on every machine, however often
 * and in whatever order tokens are drawn: the random number of a draw is a function of the seed and of the position
 * that the token will have (sampling/philox.h), the exponential base/exactmath.h's. So a text that is cut back, resumed
 * elsewhere or drafted ahead goes on as it would have gone on.
 *
 * A sampler belongs to one sequence; what picking needs besides is scratch, which samplers share. All memory comes from
 * the caller's arena. Nothing here fails or allocates. One thread at a time per sampler, and per scratch. */
#ifndef HEARTH_SAMPLING_SAMPLER_H
#define HEARTH_SAMPLING_SAMPLER_H

#include <stdbool.h>
#include <stdint.h>
#include "base/arena.h"

struct constraint;
struct grammar;
struct token_trie;

struct token_bias {
    int32_t token; /* of the vocabulary */
    float bias;    /* finite; -100 or less: never picked while the grammar leaves anything else */
};

struct sampler_params {
    float temperature;    /* <= 0: greedy */
    int32_t top_k;        /* <= 0: off */
    float top_p;          /* >= 1: off; Holtzman et al. 2020 */
    float min_p;          /* <= 0: off; Nguyen et al. 2024 */
    float repeat_penalty; /* 1: off; Keskar et al. 2019, as llama.cpp applies it: over the last repeat_last tokens */
    float presence_penalty;  /* 0: off; taken from the logit of every token among those */
    float frequency_penalty; /* 0: off; taken from it as often as the token is among those */
    int32_t repeat_last;  /* tokens; 0: none, < 0: all of the text */
    uint64_t seed;
    /* Both borrowed until the sequence has no turn with them any more. */
    uint32_t n_bias;                /* 0: none; WIRE_BIASES at most */
    const struct token_bias *bias;  /* [n_bias] added to logits before anything else */
    const struct grammar *grammar;  /* NULL: none; checked. What the text is from the position grammar_from on is of
                                     * it */
    uint32_t grammar_from;
};

/* Greedy, as an unset command line has it: temperature 0.8 etc. are the cli's defaults, not these. */
extern const struct sampler_params sampler_greedy;

/* What one sequence needs. */
struct sampler {
    struct sampler_params params;
    uint32_t begin;    /* position of the first token of the text: penalties look no further back */
    uint32_t n_text, most_text;
    int32_t *text;     /* [n_text, of most_text] */
    struct constraint *constraint; /* NULL: it can have no grammar */
    int32_t n_known;   /* tokens of the trie: others are in no grammar */
    bool constrained;  /* it has one */
};

/* What a pick needs, which leaves it as it was. */
struct sampler_scratch {
    int32_t n_vocab;
    struct choice *choices; /* [n_vocab] */
    double *weights;        /* [n_vocab] */
    float *adjusted;        /* [n_vocab] logits with biases, NaN where the grammar does not allow the token */
    uint32_t *seen;         /* [n_vocab] how often a token is among those under penalty; 0 between picks */
};

/* Take their memory from an arena; a dry one counts it. The sampler is greedy, its text empty, from position 0 on.
 * trie: of the vocabulary, borrowed, for grammars of max_ops at most; NULL: no grammars, and no memory for them. */
void sampler_lay(struct sampler *s, uint32_t most_text, const struct token_trie *trie, uint32_t max_ops,
                 struct arena *a);
void sampler_lay_scratch(struct sampler_scratch *s, int32_t n_vocab, struct arena *a);

/* An empty text, whose first token will be at a position, params.grammar_from at most if there is a grammar. The
 * parameters stay; the grammar, of which a copy is kept, is not looked at again. */
void sampler_begin(struct sampler *s, uint32_t position);
/* The text, which penalties look at: a token (in the vocabulary) comes behind it, prompt tokens too; one beyond
 * most_text is ignored. */
void sampler_accept(struct sampler *s, int32_t token);
/* The tokens from a position on are gone, if there are any. With a grammar it takes as long as the text that stays. */
void sampler_truncate(struct sampler *s, uint32_t position);
/* Where the text ends: the position of the token that is drawn next. */
static inline uint32_t sampler_position(const struct sampler *s) { return s->begin + s->n_text; }

/* Picks a token for that position, without accepting it; logits [n_vocab] are not changed. Order: biases, the grammar,
 * penalties, top-k, top-p, min-p, temperature, draw. Greedy takes the largest, the lowest id among equals. NaN logits,
 * and tokens that the grammar does not allow, are never picked unless all are. */
int32_t sampler_pick(const struct sampler *s, struct sampler_scratch *scratch, const float *logits /* [n_vocab] f32 */);

#endif
