/* One sequence of a session, for whoever has nothing else to do than to wait for it: every function returns when all is
 * done. It belongs to the session's thread, and events of the session's other sequences are lost while it waits.
 *
 * A function that fails with ST_FULL (the context, or all KV memory, has no room for the tokens) or ST_USAGE (a token
 * that the vocabulary does not have) logs it and leaves the dialogue as it was; after any other error the session is
 * broken (coordinator/session.h), and with it the dialogue. */
#ifndef HEARTH_COORDINATOR_DIALOGUE_H
#define HEARTH_COORDINATOR_DIALOGUE_H

#include "coordinator/session.h"

struct dialogue;

/* Told of every chunk of a long prompt: `done` of `total` tokens. */
typedef void dialogue_progress(void *arg, const char *what, uint64_t done, uint64_t total);

/* A dialogue of a session, which is borrowed and outlives it. ST_NOMEM (logged). */
status dialogue_create(struct session *s, struct dialogue **out);
void dialogue_free(struct dialogue *d); /* NULL is fine */

/* Appends tokens[n], in chunks, n >= 1. *next is the token sampled after them (not appended); `next` may be NULL. */
status dialogue_prompt(struct dialogue *d, const int32_t *tokens, size_t n, int32_t *next, dialogue_progress *progress,
                       void *arg);
/* Appends one token and samples the one after it. */
status dialogue_next(struct dialogue *d, int32_t token, int32_t *next);
/* Starts again at position 0 with tokens[n]: nll[i - score_from] = -log p(tokens[i + 1] | tokens[0 .. i]), natural
 * logarithm, for score_from <= i < n - 1. */
status dialogue_score(struct dialogue *d, const int32_t *tokens, size_t n, size_t score_from,
                      float *nll /* [n - score_from - 1] */);
/* Like dialogue_prompt, but returns the logits after the last token. */
status dialogue_logits(struct dialogue *d, const int32_t *tokens, size_t n, float *logits /* [n_vocab] f32 */);
/* Forgets all but the first n_tokens; nobody is told before the next step. */
void dialogue_truncate(struct dialogue *d, size_t n_tokens);
size_t dialogue_length(const struct dialogue *d); /* tokens */
/* New sampling parameters, from the next token on. What is drawn depends on them and on the dialogue's tokens alone. */
status dialogue_sampling(struct dialogue *d, const struct sampler_params *p);

#endif
