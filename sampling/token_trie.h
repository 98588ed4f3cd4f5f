/* All tokens of a vocabulary by their bytes, as a tree: whoever walks it looks at bytes that many tokens begin with
 * once. Immutable after creation, so thread-safe. */
#ifndef HEARTH_SAMPLING_TOKEN_TRIE_H
#define HEARTH_SAMPLING_TOKEN_TRIE_H

#include <stdint.h>
#include "base/status.h"
#include "model/tokenizer.h"

struct token_trie;

/* Control tokens are GRAMMAR_CONTROL and their text (sampling/grammar.h); user-defined ones that print are what they
 * print. Tokens without bytes, or with more than 255, are in no grammar. The tokenizer is not needed afterwards.
 * ST_NOMEM, ST_UNSUPPORTED: 2^24 tokens, or as many bytes in which they differ (logged). */
status token_trie_create(const struct tokenizer *t, struct token_trie **out);
void token_trie_free(struct token_trie *t); /* NULL is fine */
int32_t token_trie_n_vocab(const struct token_trie *t);

#endif
