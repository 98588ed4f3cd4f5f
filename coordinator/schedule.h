/* Which tokens of which sequences run next, and in which pages of KV memory: continuous batching. Pure logic: no clock,
 * no messages, no memory but what schedule_create and schedule_open take. One thread.
 *
 *     schedule_open          a sequence, empty
 *     sequence_append        its text
 *     schedule_submit        a turn: its text shall run, and something is wanted of the end
 *     schedule_next          the next step, to be sent; NULL: none now
 *     schedule_oldest        the step whose result comes next. Of each of its runs that is `live` and `last`: the token
 *                            drawn comes with schedule_append, or schedule_end ends the turn
 *     schedule_returned      that step is over
 *     schedule_end           also at any other time: then nobody wants what is still under way
 *     schedule_release       the sequence is not needed any more
 *
 * What is promised. Let N be the most sequences that may run at once (n_sequences or n_batch, the smaller), S the
 * steps under way at most.
 *
 * 1. Turns are begun in the order in which they were submitted, and who waits came after all who run: a turn is
 *    admitted from the front of the queue only, and who gives pages back is the last of those that run, and goes to the
 *    front of the queue.
 * 2. A running sequence that has one token to run, and its page, is in one of the next N steps that are planned after
 *    its token came. `running` is in the order in which sequences were served last; a step serves those that decode
 *    from its beginning, at least one, and each goes to the end. So with every step one of those before it is gone,
 *    and nobody comes in front. (Of those that want logits one fits into a step; the first of them is served.)
 * 3. So is a running sequence with more to run than one token, with what is left of the step: decoding takes half of
 *    its tokens at most, or one for each of at most n_batch - 1 sequences.
 * 4. The oldest that runs has every page that it asks for within N S steps: whoever is younger must leave for it, the
 *    youngest first, as soon as its steps have come, at most S later; and nobody is admitted while there are fewer free
 *    pages than those who run have still to take. If it is alone and there is no page, there will be none: its turn
 *    ends (`exhausted`).
 * 5. So the oldest runs at least a token in N (S + 1) steps, is never sent away, and a turn with k before it is over
 *    after at most (k + 1) n_ctx N (S + 1) steps. Nobody starves.
 * 6. What a sequence reads is what it would read alone: a page that others have is never written to; whoever is about
 *    to copies it first.
 *
 * Delta nets have states beside pages (states.h), which cannot go back. A beginning is then shared, and a text cut
 * back, as far as a state has been kept; the chunks of prompts end with pages, and there their states are. No drafts
 * run. */
#ifndef HEARTH_COORDINATOR_SCHEDULE_H
#define HEARTH_COORDINATOR_SCHEDULE_H

#include <stdbool.h>
#include <stdint.h>
#include "base/status.h"
#include "coordinator/sequence.h"

enum { SCHEDULE_SEQUENCES = 64 }; /* n_sequences at most */

struct schedule_options {
    uint32_t n_sequences; /* slots: sequences that have pages at once, 1 .. SCHEDULE_SEQUENCES */
    uint32_t n_pages;     /* of KV memory */
    uint32_t n_ctx;       /* tokens of one sequence */
    uint32_t n_batch;     /* tokens of a step */
    uint32_t n_groups;    /* those that decode are parted into so many, a step for each, so that all stages have work */
    uint32_t n_steps;     /* under way at most, n_groups or more. More than n_groups are so only while nobody's token is
                           * on its way, who would have to wait for them: chunks of prompts, one close behind another */
    uint32_t n_states;    /* of delta nets: n_sequences and those that are kept; 0: the model has no such nets */
    uint32_t n_bias, n_ops; /* of the samplers that begin in a step, together: biases, and ops of grammars */
};

/* Consecutive tokens of a sequence in a step. */
struct step_run {
    struct sequence *sequence;
    uint32_t slot;
    uint32_t position;   /* of the first token */
    uint32_t first;      /* the first token in step->tokens */
    uint32_t n_tokens;
    uint32_t begin_with, keep_as; /* states (states.h), 0: none: it begins with a copy of the one, the other becomes a
                                   * copy of the state at its end */
    struct wish wish;    /* `from` counted from `first`; successor: of the run's last token */
    bool begins;         /* the sampler of the slot is made anew, of sequence->sampling, behind sequence->tokens
                          * [position], which do not run */
    bool last;           /* the text ends here: what was wanted of it comes with this run (of scores: the last) */
    bool live;           /* somebody still waits for it */
};

struct step {
    uint64_t id;            /* ascending from 1 */
    uint32_t n_runs, n_tokens, n_changes;
    uint32_t n_text;        /* tokens of all texts of begins; n_ctx at most */
    uint32_t n_bias, n_ops; /* likewise; those of the options at most */
    bool logits;            /* a run wants them; one at most */
    bool shares;            /* a run begins with another's pages; one at most: no page is twice among the changes */
    struct step_run *runs;       /* [n_runs] of different sequences */
    int32_t *tokens;        /* [n_tokens] */
    struct change *changes; /* [n_changes] */
};

/* For reports. */
struct schedule_counts {
    uint32_t running, waiting, idle; /* sequences; idle: kept with their pages */
    uint32_t pages, free_pages;
    /* Since the beginning: times that a running sequence gave its pages back; steps, and the runs of all of them. */
    uint64_t sent_away, steps, runs;
};

struct schedule;

/* ST_USAGE (logged) if an option is 0 or too large; ST_NOMEM. */
status schedule_create(const struct schedule_options *o, struct schedule **out);
/* All sequences have been released. NULL is fine. */
void schedule_free(struct schedule *s);

/* Changes that a step has at most. */
uint32_t schedule_most_changes(const struct schedule_options *o);

/* A new sequence, the schedule's, until schedule_release. ST_NOMEM (logged). */
status schedule_open(struct schedule *s, struct sequence **out);
void schedule_release(struct schedule *s, struct sequence *q);

/* A turn begins, of a sequence that has none: what has not run of its text shall run. If nothing is left, the last
 * token runs again; of what is wanted of each token, all from w->from on. `p` NULL: the sampler as it was. Errors are
 * logged and change nothing: ST_USAGE: no text, or w->from is beyond it, or a sampler that fits into no step; ST_FULL:
 * all KV memory is too small for the text. */
status schedule_submit(struct schedule *s, struct sequence *q, const struct wish *w, const struct sampler_params *p);
/* The text goes on with a token, of which the same is wanted. ST_FULL as sequence_append. */
status schedule_append(struct schedule *s, struct sequence *q, int32_t token);
/* A guess at what comes after the token appended last, for WISH_TOKEN: as many drafts as there is room for run with it.
 * They come back as WISH_TOKENS: sequence_accept. */
void schedule_propose(struct schedule *s, struct sequence *q, const int32_t *drafts, uint32_t n);
/* The drafts that were right and the token after them; how many drafts. */
uint32_t schedule_accept(struct schedule *s, struct sequence *q, const int32_t *picked);
/* The turn is over, or given up. Text and pages stay for the next. */
void schedule_end(struct schedule *s, struct sequence *q);
/* All but the first n tokens of a sequence without a turn are gone. */
void schedule_cut(struct schedule *s, struct sequence *q, uint32_t n);

/* NULL: nothing can run now, or as many steps are under way as may be. It stays as it is until it has returned and the
 * next is planned. */
const struct step *schedule_next(struct schedule *s);
/* NULL: none is under way. */
const struct step *schedule_oldest(const struct schedule *s);
/* After what it brought was told. */
void schedule_returned(struct schedule *s);
/* The sequence whose turn the last schedule_next has ended because all KV memory together is too small for it: its text
 * stays. NULL: none. */
struct sequence *schedule_exhausted(const struct schedule *s);

/* Steps planned so far: the id of the last. */
uint64_t schedule_n_steps(const struct schedule *s);

struct schedule_counts schedule_counts(const struct schedule *s);

#endif
