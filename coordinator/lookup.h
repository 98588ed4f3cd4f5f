/* What may come next in a text, by what came after the same tokens before: prompt look-up (Saxena, "Prompt Lookup
 * Decoding", 2023). Of the last 3 tokens, or 2, or 1, the place is found where the text had them last before; what
 * followed there is the guess. Taking a token and guessing are O(1), and memory is bounded by the context. One
 * thread. */
#ifndef HEARTH_COORDINATOR_LOOKUP_H
#define HEARTH_COORDINATOR_LOOKUP_H

#include <stdint.h>
#include "base/status.h"

enum { LOOKUP_LONGEST = 3 }; /* tokens that are looked for */

struct lookup;

/* For texts of at most n_ctx tokens. Memory that a text does not need is not touched. ST_NOMEM (logged). */
status lookup_create(uint32_t n_ctx, struct lookup **out);
void lookup_free(struct lookup *l); /* NULL is fine */

/* Another text begins: it is empty. */
void lookup_begin(struct lookup *l);
/* The text is now text [n], n_ctx at most; what was taken of it before has not changed. */
void lookup_take(struct lookup *l, const int32_t *text, uint32_t n);
/* A guess at the `most` tokens behind text [n], all of which was taken: `most`, or 0 if the last token is new to the
 * text. *length: of the tokens that were found, 1 .. LOOKUP_LONGEST. A guess that comes to the text's end goes on with
 * itself. */
uint32_t lookup_guess(const struct lookup *l, const int32_t *text, uint32_t n, uint32_t most, int32_t *out,
                      uint32_t *length);

#endif
