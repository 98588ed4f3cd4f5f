/* The samplers of all sequences, at the last stage. A sampler's text is its sequence's, so that penalties look back. */
#ifndef HEARTH_WORKER_SAMPLERS_H
#define HEARTH_WORKER_SAMPLERS_H

#include "base/arena.h"
#include "sampling/sampler.h"
#include "wire/runs.h"

struct samplers {
    struct sampler of[WIRE_SEQUENCES]; /* limits.n_sequences are laid */
    struct sampler_scratch scratch;
    struct token_bias *bias;         /* [n_sequences, WIRE_BIASES] */
    struct grammar_op *ops;          /* [n_grammar_ops] of what begins */
};

/* Takes its memory from an arena; a dry one counts it. All are greedy, their texts empty. trie: borrowed; NULL where
 * limits have no grammars. */
void samplers_lay(struct samplers *s, const struct wire_limits *lim, const struct token_trie *trie, struct arena *a);
/* What a decoded step changes before its runs: the texts end where those begin, and some samplers are made anew.
 * ST_FORMAT (logged) if a grammar is none, or a run does not go on where its sampler's text ends. */
status samplers_begin(struct samplers *s, const struct wire_step *step);
/* The text of a run's sequence has its tokens [run's n_tokens] up to the one at a place; no more of them. */
void samplers_accept(struct samplers *s, const struct wire_run *run, const int32_t *tokens, uint32_t place);
/* Picks the token after that text. */
int32_t samplers_pick(struct samplers *s, const struct wire_run *run, const float *logits /* [n_vocab] */);

#endif
