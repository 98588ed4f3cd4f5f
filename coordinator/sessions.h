/* Many conversations with the model at once: the schedule's steps sent to the ranks, and what comes back. Nothing here
 * waits, but for what says so. It belongs to the thread that owns the transport and the own worker.
 *
 *     sessions_open, sessions_text, sessions_submit      a sequence, its text, a turn (coordinator/schedule.h)
 *     sessions_poll                                      what has happened since, one event at a time
 *     sessions_append or sessions_end                    the answer to an event that brings a token
 *
 * A function that fails with ST_FULL or ST_USAGE has logged it and changes nothing; after any other error (ST_PEER: a
 * rank died or failed; ST_FORMAT: its answer is broken) all sessions are broken: whatever would talk to the ranks is
 * refused from then on with one line and ST_PEER. */
#ifndef HEARTH_COORDINATOR_SESSIONS_H
#define HEARTH_COORDINATOR_SESSIONS_H

#include <stddef.h>
#include "coordinator/schedule.h"
#include "transport/transport.h"
#include "wire/wire.h"

struct sessions;

struct session_top {
    int32_t token;
    float log_p;
};

/* What came back of one run. */
struct session_answer {
    uint32_t n_tokens, n_tops, n_values;
    const int32_t *tokens;         /* [n_tokens] drawn */
    const struct session_top *tops; /* [n_tops] best first */
    const float *values;           /* [n_values] scores, logits, or the final state */
};

/* What sessions stand on. Borrowed pointers outlive them. */
struct sessions_options {
    struct transport *transport;
    struct schedule_options schedule;
    uint32_t n_vocab;
    int first_stage, last_stage; /* ranks */
    /* Lets this process's own worker handle a message; *handled false: there was none. */
    status (*pump)(void *arg, bool *handled);
    void *pump_arg;
    /* The messages: STEP of at most step_max bytes, RESULT of at most result_max. decode sets an answer for each run of
     * `step` and adds the step's counts. */
    size_t step_max, result_max;
    size_t (*encode)(const struct step *step, uint8_t *out, size_t cap);
    status (*decode)(void *in, size_t n, const struct step *step, struct session_answer *answers /* [n_runs] */,
                     struct wire_counts *counts);
};

/* A run of somebody's turn has come back; or, if `st` is not ST_OK, the turn has ended without. */
struct session_event {
    struct sequence *sequence;
    status st;              /* ST_FULL: all KV memory together is too small for the text and a token more; text and
                             * pages stay for a next turn */
    enum wish_kind kind;    /* what was wanted of the run; WISH_NOTHING: a chunk of a prompt */
    uint32_t n_run;         /* positions of the text that have run so far */
    bool over;              /* the turn is over, as is all that was wanted */
    /* Until the next poll. With drafts, tokens are those of them that were right, which are text now, and the one after
     * them, which is not yet: that is answered. */
    struct session_answer answer;
};

/* ST_USAGE, ST_NOMEM, ST_PEER (logged). */
status sessions_create(const struct sessions_options *o, struct sessions **out);
/* Only after the transport was closed; all sequences have been closed. NULL is fine. */
void sessions_free(struct sessions *s);

/* A sequence, empty; and the end of it, at any time. ST_NOMEM. */
status sessions_open(struct sessions *s, struct sequence **out);
void sessions_close(struct sessions *s, struct sequence *q);

/* Text of a sequence that has no turn: behind it; or all but the first n tokens are gone. ST_FULL: longer than the
 * context; ST_USAGE: no token of the vocabulary. */
status sessions_text(struct sessions *s, struct sequence *q, const int32_t *tokens, uint32_t n);
void sessions_cut(struct sessions *s, struct sequence *q, uint32_t n);
/* A turn, as schedule_submit. */
status sessions_submit(struct sessions *s, struct sequence *q, const struct wish *w, const struct sampler_params *p);
/* Gives a turn up, or ends it where a token has come. No event of it comes any more. */
void sessions_end(struct sessions *s, struct sequence *q);

/* Sends what can run, takes what has come, lets the own worker handle a message; returns at once. *found false: nothing
 * has happened that anybody waits for. A token in an event is answered before the next poll: it becomes text
 * (sessions_append: the turn goes on; ST_FULL: the context is full), with drafts of what may follow if there are any,
 * or the turn is over. Not to answer ends it too. */
status sessions_poll(struct sessions *s, struct session_event *e, bool *found);
status sessions_append(struct sessions *s, struct sequence *q, int32_t token);
void sessions_propose(struct sessions *s, struct sequence *q, const int32_t *drafts, uint32_t n);

/* Sequences that can run at once. */
uint32_t sessions_slots(const struct sessions *s);
struct schedule_counts sessions_schedule(const struct sessions *s);
/* Work done on all ranks for the steps since the start or the last reset; a step counts when its result has come. */
struct wire_counts sessions_counts(const struct sessions *s);
void sessions_reset_counts(struct sessions *s);

/* ---- For who has nothing else to do: these wait ---- */

/* Polls until something has happened. ST_USAGE (logged): nothing will, as no turn is under way. */
status sessions_wait(struct sessions *s, struct session_event *e);

/* The next event of q that is not a chunk's; events of others are lost. `progress` (NULL: silent) is told of every
 * chunk: `done` of `total` tokens. */
typedef void sessions_progress(void *arg, const char *what, uint64_t done, uint64_t total);
status sessions_await(struct sessions *s, struct sequence *q, struct session_event *e, sessions_progress *progress,
                      void *arg);

/* Scores windows of a text, as many at once as there are sequences: tokens [n, size], nll[i - from] = -log p(token
 * i + 1 | tokens 0 .. i), natural logarithm, for from <= i < size - 1. `each` is told of every window, in order, and
 * stops it all by another status than ST_OK. No turn may be under way. */
typedef status sessions_scored(void *arg, size_t window, const float *nll /* [size - from - 1] */);
status sessions_score(struct sessions *s, const int32_t *tokens, size_t n, uint32_t size, uint32_t from,
                      sessions_scored *each, void *arg);

#endif
