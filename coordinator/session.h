/* Many conversations with the model at once: the schedule's steps sent to the ranks, and what comes back. Nothing here
 * waits, but for what says so. It belongs to the thread that owns the transport and the own worker. Who has one
 * conversation and nothing else to do than to wait takes coordinator/dialogue.h.
 *
 *     session_open, session_text, session_submit    a sequence, its text, a turn (coordinator/schedule.h)
 *     session_poll                                  what has happened since, one event at a time
 *     session_append or session_end                 the answer to an event that brings a token
 *
 * A function that fails with ST_FULL or ST_USAGE has logged it and changes nothing; after any other error (ST_PEER: a
 * rank died or failed; ST_FORMAT: its answer is broken) the session is broken: whatever would talk to the ranks is
 * refused from then on with one line and ST_PEER. */
#ifndef HEARTH_COORDINATOR_SESSION_H
#define HEARTH_COORDINATOR_SESSION_H

#include <stddef.h>
#include "coordinator/messages.h"
#include "coordinator/schedule.h"
#include "transport/transport.h"

struct session;

/* What a session stands on. Borrowed pointers outlive it. */
struct session_options {
    struct transport *transport;
    struct wire_limits limits;
    uint32_t n_stages;           /* of the plan */
    int first_stage, last_stage; /* ranks */
    /* Lets this process's own worker handle a message; *handled false: there was none. */
    status (*pump)(void *arg, bool *handled);
    void *pump_arg;
};

/* A run of somebody's turn has come back; or, if `st` is not ST_OK, the turn has ended without. */
struct session_event {
    struct sequence *sequence;
    status st;              /* ST_FULL (logged): all KV memory together is too small for the text and a token more;
                             * text and pages stay for a next turn */
    enum wish_kind kind;    /* what was wanted of the run; WISH_NOTHING: a chunk of a prompt */
    uint32_t n_run;         /* positions of the text that have run so far */
    bool over;              /* the turn is over, as is all that was wanted */
    uint64_t step;          /* the step that it was part of, ascending from 1; 0: none */
    uint32_t step_tokens;   /* of all texts in that step */
    /* Until the next poll. With drafts, tokens are those of them that were right, which are text now, and the one after
     * them, which is not yet: that is answered. */
    struct session_answer answer;
};

/* ST_USAGE, ST_NOMEM, ST_PEER (logged); the other ranks know nothing of it then. */
status session_create(const struct session_options *o, struct session **out);
/* Tells every other rank to stop; NULL is fine. No turn may be under way, and the session can then only be freed.
 * ST_PEER if it or a rank was broken before. */
status session_stop(struct session *s);
/* Only after its transport was closed, which may still hold messages of a session that failed; all sequences have been
 * closed. NULL is fine. */
void session_free(struct session *s);
/* ST_PEER (logged) if it is broken. */
status session_check(const struct session *s);

/* A sequence, empty; and the end of it, at any time. ST_NOMEM. */
status session_open(struct session *s, struct sequence **out);
void session_close(struct session *s, struct sequence *q);

/* ST_USAGE (logged) if one of tokens [n] is none of the vocabulary. */
status session_check_tokens(const struct session *s, const int32_t *tokens, size_t n);
/* Text of a sequence that has no turn: behind it; or all but the first n tokens are gone. ST_FULL: longer than the
 * context; ST_USAGE: no token of the vocabulary. */
status session_text(struct session *s, struct sequence *q, const int32_t *tokens, uint32_t n);
void session_cut(struct session *s, struct sequence *q, uint32_t n);
/* A turn, as schedule_submit. ST_USAGE, too: more best tokens than WIRE_TOP, WISH_TOKENS (which drafts alone bring), a
 * successor that is no token of the vocabulary, sampling parameters that are not finite, biases of tokens that there
 * are not, a grammar that is none or too large, or any where the session has none. */
status session_submit(struct session *s, struct sequence *q, const struct wish *w, const struct sampler_params *p);
/* Gives a turn up, or ends it where a token has come. No event of it comes any more. */
void session_end(struct session *s, struct sequence *q);

/* Sends what can run, takes what has come, lets the own worker handle a message; returns at once. *found false: nothing
 * has happened that anybody waits for. A token in an event is answered before the next poll: it becomes text
 * (session_append: the turn goes on; ST_FULL: the context is full), with drafts of what may follow if there are any,
 * or the turn is over. Not to answer ends it too. */
status session_poll(struct session *s, struct session_event *e, bool *found);
status session_append(struct session *s, struct sequence *q, int32_t token);
/* As schedule_propose; the first that is no token of the vocabulary ends the drafts. */
void session_propose(struct session *s, struct sequence *q, const int32_t *drafts, uint32_t n);

struct wire_limits session_limits(const struct session *s);
struct schedule_counts session_schedule(const struct session *s);
/* Work done on all ranks for the steps since the start or the last reset; a step counts when its result has come. */
struct wire_counts session_counts(const struct session *s);
void session_reset_counts(struct session *s);

/* Polls until something has happened. ST_USAGE (logged): nothing will, as no turn is under way. */
status session_wait(struct session *s, struct session_event *e);

/* Asks every rank, rank 0's own worker too, what it has sent and how its time went since its start, and sums that up;
 * messages of asking are not among it. ranks: NULL, or [n_ranks], what each said; devices are only there. No turn may
 * be under way; it waits for steps of turns that were given up. Errors as of a step. */
status session_usage(struct session *s, struct wire_usage *sum, struct wire_usage *ranks);

/* The same without waiting, and while turns are under way: session_poll takes what the ranks say, and no step waits for
 * it. Nothing happens if they have been asked already and not all have answered. Errors as of a step. */
status session_ask_usage(struct session *s);
/* What each rank said, and how many there are. 0, and nothing else: they were not asked, or not all have answered
 * yet. */
uint32_t session_told_usage(const struct session *s, struct wire_usage *ranks);
/* Whether steps are under way, be it for nobody, or ranks have still to answer: then session_poll is to be called. */
bool session_busy(const struct session *s);

#endif
