/* One sequence: its tokens and what of them is in the ranks' KV caches. It belongs to the thread that owns the
 * transport and the own worker, for whoever waits here lets that worker run.
 *
 * A function that fails with ST_FULL (the context has no room for the tokens) or ST_USAGE (a token that the vocabulary
 * does not have) logs it and leaves the session as it was; after any other error (ST_PEER: a rank died or failed;
 * ST_FORMAT: its answer is broken) the session is broken: whatever would talk to the ranks is refused from then
 * on with one line and ST_PEER, but for session_stop. */
#ifndef HEARTH_COORDINATOR_SESSION_H
#define HEARTH_COORDINATOR_SESSION_H

#include <stddef.h>
#include <stdint.h>
#include "base/status.h"
#include "sampling/sampler.h"
#include "transport/transport.h"
#include "wire/wire.h"

struct session;

/* Told of every chunk of a long prompt: `done` of `total` tokens. */
typedef void session_progress(void *arg, const char *what, uint64_t done, uint64_t total);

/* What a session stands on. Borrowed pointers outlive it. */
struct session_options {
    struct transport *transport;
    struct wire_limits limits;
    int first_stage, last_stage; /* ranks */
    /* Lets this process's own worker handle a message; *handled false: there was none. */
    status (*pump)(void *arg, bool *handled);
    void *pump_arg;
};

/* ST_NOMEM, ST_PEER (logged); the other ranks know nothing of it then. */
status session_create(const struct session_options *o, struct session **out);
/* Tells every other rank to stop; NULL is fine. The session can then only be freed. ST_PEER if it or a rank was broken
 * before. */
status session_stop(struct session *s);
/* Only after its transport was closed, which may still hold messages of a session that failed. NULL is fine. */
void session_free(struct session *s);

/* Appends tokens[n], in chunks, n >= 1. *next is the token sampled after them (not appended); `next` may be NULL. */
status session_prompt(struct session *s, const int32_t *tokens, size_t n, int32_t *next, session_progress *progress,
                      void *arg);
/* Appends one token and samples the one after it. */
status session_next(struct session *s, int32_t token, int32_t *next);
/* Starts again at position 0 with tokens[n]: nll[i - score_from] = -log p(tokens[i + 1] | tokens[0 .. i]), natural
 * logarithm, for score_from <= i < n - 1. */
status session_score(struct session *s, const int32_t *tokens, size_t n, size_t score_from,
                     float *nll /* [n - score_from - 1] */);
/* Forgets all but the first n_tokens; nobody is told before the next step. */
void session_truncate(struct session *s, size_t n_tokens);
size_t session_length(const struct session *s); /* tokens */
/* Work done on all ranks for the steps since the start or the last reset; a step counts when its result has come. */
struct wire_counts session_counts(const struct session *s);
void session_reset_counts(struct session *s);
/* Asks every rank, rank 0's own worker too, what it has sent and how its time went since its start, and sums that up;
 * messages of asking are not among it. No step may be under way. Errors as of a step. */
status session_usage(struct session *s, struct wire_usage *sum);
/* New sampling parameters. What is drawn depends on them and on the tokens of the sequence alone. */
status session_sampling(struct session *s, const struct sampler_params *p);
/* Like session_prompt, but returns the logits after the last token. */
status session_logits(struct session *s, const int32_t *tokens, size_t n, float *logits /* [n_vocab] f32 */);

#endif
