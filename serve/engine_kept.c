#include "serve/engine_kept.h"

/* Of a text that goes on itself no more tokens are lost: one of which more is lost may be gone on with in another way,
 * and another sequence shares its pages. */
enum { LOST_MOST = 16 };

/* Closes those whose pages the schedule has taken back. */
static void sweep(struct kept *k, struct session *s)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < k->n; i++) {
        if (k->at[i]->slot == PAGE_NONE)
            session_close(s, k->at[i]);
        else
            k->at[n++] = k->at[i];
    }
    k->n = n;
}

void kept_put(struct kept *k, struct session *s, struct sequence *q)
{
    sweep(k, s); /* who is left has a slot, of which there are as many as places here; q's own is free or q's */
    if (q->slot == PAGE_NONE || q->n_tokens == 0)
        session_close(s, q);
    else
        k->at[k->n++] = q;
}

/* Whether q is among those who have to leave for a new one: who ended longest ago does first. */
static bool leaves(const struct kept *k, const struct sequence *q, uint32_t room)
{
    uint32_t older = 0;
    for (uint32_t i = 0; i < k->n; i++)
        older += k->at[i]->ticket < q->ticket;
    return older + room < k->n + 1;
}

struct sequence *kept_take(struct kept *k, struct session *s, const int32_t *tokens, uint32_t n, uint32_t others,
                           uint32_t room)
{
    sweep(k, s);
    uint32_t most = others, best = k->n;
    for (uint32_t i = 0; i < k->n; i++) {
        const struct sequence *q = k->at[i];
        const uint32_t limit = q->n_sent < n ? q->n_sent : n, common = tokens_in_common(q->tokens, tokens, limit);
        if (common <= most)
            continue;
        most = common;
        best = i;
    }
    struct sequence *q = best < k->n ? k->at[best] : NULL;
    if (!q || (q->n_tokens - most > LOST_MOST && !leaves(k, q, room)))
        return NULL;
    k->at[best] = k->at[--k->n];
    session_cut(s, q, most);
    return q;
}

void kept_drop(struct kept *k, struct session *s)
{
    while (k->n)
        session_close(s, k->at[--k->n]);
}
