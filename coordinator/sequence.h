/* One conversation: its text, and which pages hold the keys and values of which positions of it. A sequence knows
 * nothing of others but in sequence_share, and nothing of time: when it runs is the schedule's (schedule.h), who also
 * keeps the last group of fields. All may read the fields; those of the first two groups are written here alone. One
 * thread.
 *
 *     0 ........ n_run ........ n_sent ........ n_tokens - n_drafts ........ n_tokens
 *     has run    under way      to be run       drafts: a guess at what comes
 */
#ifndef HEARTH_COORDINATOR_SEQUENCE_H
#define HEARTH_COORDINATOR_SEQUENCE_H

#include <stdbool.h>
#include <stdint.h>
#include "base/status.h"
#include "coordinator/pages.h"
#include "coordinator/states.h"
#include "sampling/grammar.h"
#include "sampling/sampler.h"

/* What is wanted of a text that runs, or of a run. */
enum wish_kind {
    WISH_NOTHING,
    WISH_TOKEN,  /* the token after the end */
    WISH_TOKENS, /* of a run with drafts: the token after each place from `from` on */
    WISH_SCORES, /* minus log probability of each token's successor, for the tokens from `from` on */
    WISH_LOGITS, /* the token, and the logits it was drawn from */
    WISH_TOP,    /* the token, and the n_top best with their log probabilities */
    WISH_STATES, /* the final state of the last token */
    WISH_SUM,    /* the sum of the final states of all tokens from `from` on (wire/runs.h), which all run for it */
    WISH_LOG_PROBS /* the log probability of each token's successor, and the n_top best in its place, likewise: the very
                    * values that WISH_TOP brings */
};

struct wish {
    enum wish_kind kind;
    uint32_t from;     /* WISH_SCORES, WISH_SUM, WISH_LOG_PROBS: a position of the text */
    int32_t successor; /* WISH_SCORES, WISH_LOG_PROBS: of the last token */
    uint32_t n_top;    /* WISH_TOP, WISH_LOG_PROBS */
};

/* Whether what is wanted is of the tokens that follow. */
static inline bool wants_successors(const struct wish *w)
{
    return w->kind == WISH_SCORES || w->kind == WISH_LOG_PROBS;
}

/* Whether something is wanted of every token from w->from on: they all run, and each run brings its part. */
static inline bool wants_each(const struct wish *w) { return w->kind == WISH_SUM || wants_successors(w); }

/* A change of a rank's table: entry `index` of the sequence in `slot` is `page` from now on; first all that lies in
 * page `from` is copied there, unless it is PAGE_NONE. Changes are carried out in their order, each layer's copies
 * before anything of the layer runs. */
struct change {
    uint32_t slot, index, page, from;
};

enum sequence_state {
    SEQUENCE_IDLE,    /* nobody waits for it; its pages are kept for its next turn, while nobody needs them */
    SEQUENCE_WAITING, /* in the queue; it may have pages of its last turn */
    SEQUENCE_RUNNING
};

struct sequence {
    /* The text. */
    int32_t *tokens; /* [n_ctx] */
    uint32_t n_ctx, n_tokens, n_drafts;
    /* Keys and values. */
    uint32_t *table;           /* [pages_of(n_ctx)] pages, in order of position */
    uint32_t n_table;          /* entries in use */
    uint32_t n_told;           /* of them, those that the ranks know */
    uint32_t copy_from;        /* the entry of position n_sent begins as a copy of this page; or PAGE_NONE */
    uint32_t n_sent, n_run;    /* positions */
    struct states *states;     /* of delta nets, of all sequences; NULL: the model has no such nets */
    uint32_t begin_with;       /* with this state position n_sent begins, read until then; 0: with its own, or at 0 */
    /* The schedule's. */
    struct wish wish;
    struct sampler_params sampling;
    enum sequence_state state;
    uint32_t slot;             /* PAGE_NONE: it has none, and no pages */
    uint32_t under_way;        /* steps */
    uint32_t n_shared;         /* positions that need not run since it was admitted: kept, or of another's beginning */
    uint64_t ticket;           /* order of arrival of its turn; of its end, if it is idle */
    uint64_t tried;            /* number of the plan that looked at it last */
    bool begun;                /* the ranks have its sampler */
    bool cut;                  /* back, while steps of it were under way: until these have come, no other may begin */
    bool leaving;              /* it gives its pages back when its steps have come */
    bool released;             /* by its owner: it goes when its steps have come */
    struct sequence *next;     /* in the queue */
};

/* An empty text of at most n_ctx tokens; states (NULL: the model has none) are borrowed. ST_NOMEM (logged). */
status sequence_create(uint32_t n_ctx, struct states *states, struct sequence **out);
void sequence_free(struct sequence *q); /* without pages; NULL is fine */

/* Of the grammar; 0: there is none. */
static inline uint32_t grammar_ops(const struct sampler_params *p) { return p->grammar ? p->grammar->n_ops : 0; }

/* Appends tokens [n] behind the text, which has no drafts. ST_FULL (logged), and nothing is changed. */
status sequence_append(struct sequence *q, const int32_t *tokens, uint32_t n);
/* All but the first n tokens are gone, drafts too, with the pages that held nothing else. */
void sequence_cut(struct sequence *q, struct pages *p, uint32_t n);
/* The text stays, but positions from n on run again; where there are states, which cannot go back, from where the
 * longest beginning of these n ends that is kept. */
void sequence_rewind(struct sequence *q, struct pages *p, uint32_t n);

/* Puts drafts [n] behind the text, as many as it has room for, and says how many. */
uint32_t sequence_propose(struct sequence *q, const int32_t *drafts, uint32_t n);
/* Keeps n drafts at most. */
void sequence_limit_drafts(struct sequence *q, uint32_t n);
/* The run with all drafts came back with the tokens that follow its places, picked [n_drafts + 1]. Drafts are part of
 * the text up to the first that is not what was picked; the others are gone, and their positions run again. How many
 * became text: picked[that many] is the token that follows, which is not appended. */
uint32_t sequence_accept(struct sequence *q, struct pages *p, const int32_t *picked);

/* The first tokens, `limit` at most, in which the texts agree. */
uint32_t sequence_common(const struct sequence *q, const struct sequence *other, uint32_t limit);
/* Begins q, which has no pages, with the first n tokens' keys and values of `other`, whose text agrees in these: full
 * pages are shared, the rest is copied from a part of a page if a page is free for it. n <= other->n_sent, as of the
 * steps before the one that q is then first part of. Where there are states `state` is the one after n tokens, and all
 * or nothing is shared. */
void sequence_share(struct sequence *q, struct pages *p, const struct sequence *other, uint32_t n, uint32_t state);

/* Positions that q can be run up to without another page. */
uint32_t sequence_covered(const struct sequence *q, const struct pages *p);
/* One page more: a copy of the last one if others have that too and q is about to write there. False: none is free. */
bool sequence_extend(struct sequence *q, struct pages *p);
/* Pages that q must take to be run up to `end`. */
uint32_t sequence_lacks(const struct sequence *q, const struct pages *p, uint32_t end);

/* The next n tokens are sent. Writes what the ranks do not know of the table as far as these need it, and says how many
 * changes; `out` has room. */
uint32_t sequence_send(struct sequence *q, uint32_t n, struct change *out);
/* The first n positions have run. */
void sequence_ran(struct sequence *q, uint32_t n);
/* Gives all pages back, and drafts up; the text stays and runs again. */
void sequence_give_back(struct sequence *q, struct pages *p);

#endif
