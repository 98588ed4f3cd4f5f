/* Beginnings that are kept: texts of jobs that are over, whose pages serve later ones that begin alike. The schedule
 * shares their pages with any sequence, and takes them back, from who ended longest ago first, when it is short of
 * them; here is who they are, and which of them goes on itself. One thread. */
#ifndef HEARTH_SERVE_ENGINE_KEPT_H
#define HEARTH_SERVE_ENGINE_KEPT_H

#include "coordinator/session.h"

struct kept {
    struct sequence *at[SCHEDULE_SEQUENCES]; /* [n] without turns */
    uint32_t n;
};

/* The first tokens, limit at most, in which texts agree. */
static inline uint32_t tokens_in_common(const int32_t *a, const int32_t *b, uint32_t limit)
{
    uint32_t n = 0;
    while (n < limit && a[n] == b[n])
        n++;
    return n;
}

/* Takes a sequence without a turn; one that has no pages is closed, at once or later. */
void kept_put(struct kept *k, struct session *s, struct sequence *q);
/* The sequence of which tokens [n] are a continuation, but for a few at its end, which are cut off; unless another, or
 * one that is not here with `others` tokens in common, has more in common. There are `room` slots for those that are
 * here and a new one: one that would leave for it may lose more, as its pages could not be shared. NULL: none. */
struct sequence *kept_take(struct kept *k, struct session *s, const int32_t *tokens, uint32_t n, uint32_t others,
                           uint32_t room);
/* Closes all. */
void kept_drop(struct kept *k, struct session *s);

#endif
