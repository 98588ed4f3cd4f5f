/* Where a text is in its grammar, and which tokens may come next. One belongs to one sequence at a time; memory comes
 * from the caller's arena. Nothing here allocates. One thread at a time per constraint; tries are shared.
 *
 * The machine of sampling/grammar.h is made deterministic as far as texts need it: a set of (place, stack) that came up
 * is a state, and what a byte makes of it is looked up from then on. When their memory is full they are forgotten and
 * come up again. Which tokens are allowed does not depend on that. */
#ifndef HEARTH_SAMPLING_CONSTRAINT_H
#define HEARTH_SAMPLING_CONSTRAINT_H

#include <stdbool.h>
#include <stdint.h>
#include "base/arena.h"
#include "sampling/grammar.h"
#include "sampling/token_trie.h"

struct constraint;

/* A constraint without a grammar, for grammars of at most max_ops; the trie (borrowed) outlives it. A dry arena counts
 * (the trie's n_vocab alone is read then). Until constraint_begin it is a text that has left its grammar. About 2.1 MB,
 * and as many bytes as the vocabulary has tokens. */
struct constraint *constraint_lay(const struct token_trie *t, uint32_t max_ops, struct arena *a);
/* Begins a checked grammar, of which it keeps a copy: no byte has been written. NULL: the one that it has. */
void constraint_begin(struct constraint *c, const struct grammar *g);
/* The text has the token; one that ends an answer changes nothing. Of a text that leaves the grammar nothing but its
 * end is allowed from then on. */
void constraint_accept(struct constraint *c, int32_t token);
/* Whether the text as it is may end here. */
bool constraint_complete(struct constraint *c);
/* A bit for each token that may come next [n_vocab, rounded up to 64], until the next call; tokens that end an answer
 * (of the tokenizer) are among them where the text may end, or where nothing else is allowed. */
const uint64_t *constraint_mask(struct constraint *c);

#endif
