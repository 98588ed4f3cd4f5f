/* How well the model predicts a text, measured as llama.cpp measures it: windows of the context's size that do not
 * overlap, each begun with BOS where the model wants one, of which the second half is scored. */
#ifndef HEARTH_COORDINATOR_SCORING_H
#define HEARTH_COORDINATOR_SCORING_H

#include <stddef.h>
#include <stdint.h>
#include "base/status.h"
#include "model/tokenizer.h"
#include "coordinator/session.h"

struct score {
    uint64_t windows, scored;
    double sum, squares; /* of the negative log probabilities */
};

/* A text cut into windows. */
struct windows {
    int32_t *tokens;  /* [n * size], malloc'ed; the first of each window gave way to BOS */
    size_t size, n;
    size_t n_tokens;  /* of the whole text */
};

double score_perplexity(const struct score *s);
/* The standard error of the mean carried through exp. */
double score_uncertainty(const struct score *s);
void score_add(struct score *s, const struct score *more);

/* Cuts a text into windows of `size` tokens, `most` of them at most (0: all). ST_USAGE if it has fewer than `least`
 * tokens or not one whole window, ST_NOMEM; both logged. windows_free gives the tokens back. */
status windows_cut(const struct tokenizer *t, const char *text, size_t n_bytes, size_t size, size_t least, size_t most,
                   struct windows *out);
void windows_free(struct windows *w);

/* Told of every window, its own score alone. What it returns ends the scoring unless it is ST_OK. */
typedef status window_scored(void *arg, size_t window, const struct score *s);

/* Scores windows [begin, end), of 3 tokens or more, as many at once as the session has sequences; `each` is told of
 * them in their order. No turn may be under way. ST_NOMEM, or what the session or `each` returns. */
status windows_score(struct session *session, const struct windows *w, size_t begin, size_t end, window_scored *each,
                     void *arg);

#endif
