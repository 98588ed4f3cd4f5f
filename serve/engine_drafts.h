/* Drafts: guesses at what comes next in a text, which run with its last token in one step. How many pay is decided by
 * what was measured: how often guesses were right, those too that did not run, and what steps of so many tokens take.
 * The text does not depend on any of it. One thread. */
#ifndef HEARTH_SERVE_ENGINE_DRAFTS_H
#define HEARTH_SERVE_ENGINE_DRAFTS_H

#include <stdbool.h>
#include "coordinator/lookup.h"

enum { DRAFTS_MOST = 8, PACE_TOKENS = 64 };

/* What steps cost, and what is known of the next one so far. */
struct pace {
    double step_s[PACE_TOKENS + 1]; /* mean seconds of a step of so many tokens, the latest count most; 0: not known */
    uint32_t tokens;                /* of the next step */
    double made;                    /* tokens that it is expected to bring */
    uint32_t decisions;
};

void pace_add(struct pace *p, uint32_t tokens, double seconds);
/* Another step is to come, of n texts and no drafts so far. */
void pace_begin(struct pace *p, uint32_t n);

/* Of one text. */
struct drafter {
    struct lookup *lookup;           /* its own; NULL: no drafts */
    double right[LOOKUP_LONGEST + 1]; /* chance of a guess, if those before it were right, by length of what was
                                       * found */
    int32_t guess[DRAFTS_MOST];
    uint32_t n_guess, length;        /* of the guess; of what was found for it */
    uint32_t n_proposed;             /* of the guess */
};

status drafter_create(struct drafter *d, uint32_t n_ctx); /* ST_NOMEM (logged) */
void drafter_free(struct drafter *d);
/* Another text. */
void drafter_begin(struct drafter *d);
/* Tokens [n] came: was the last guess right? */
void drafter_judge(struct drafter *d, const int32_t *tokens, uint32_t n);
/* How many guesses at what follows text [n], `most` at most, are worth the next step: d->guess [that many]. */
uint32_t drafter_propose(struct drafter *d, struct pace *p, const int32_t *text, uint32_t n, uint32_t most);

#endif
