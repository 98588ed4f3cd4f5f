#include "serve/engine_drafts.h"

#include <stddef.h>

/* ---- What steps cost ---- */

void pace_add(struct pace *p, uint32_t tokens, double seconds)
{
    static const double weight = 1.0 / 8;
    if (tokens == 0 || tokens > PACE_TOKENS || !(seconds > 0))
        return;
    double *mean = &p->step_s[tokens];
    *mean = *mean > 0 ? *mean + weight * (seconds - *mean) : seconds;
}

void pace_begin(struct pace *p, uint32_t n)
{
    p->tokens = n;
    p->made = n;
}

/* Seconds of a step of so many tokens: measured, or on the line between the nearest that are. Beyond these it is the
 * least that it can be, so that it is tried: as long as a shorter one, or a part of a longer one. */
static double step_s(const struct pace *p, uint32_t tokens)
{
    uint32_t low = tokens < PACE_TOKENS ? tokens : PACE_TOKENS, high = low;
    while (low > 0 && p->step_s[low] == 0)
        low--;
    while (high <= PACE_TOKENS && p->step_s[high] == 0)
        high++;
    if (low == 0 && high > PACE_TOKENS)
        return 1;
    if (low == 0)
        return p->step_s[high] * tokens / high;
    if (high > PACE_TOKENS)
        return p->step_s[low];
    if (low == high)
        return p->step_s[low];
    return p->step_s[low] + (p->step_s[high] - p->step_s[low]) * (tokens - low) / (high - low);
}

/* ---- Guesses ---- */

status drafter_create(struct drafter *d, uint32_t n_ctx)
{
    *d = (struct drafter){0};
    return lookup_create(n_ctx, &d->lookup);
}

void drafter_free(struct drafter *d)
{
    lookup_free(d->lookup);
    d->lookup = NULL;
}

/* The more tokens were found again, the likelier the same follow. */
void drafter_begin(struct drafter *d)
{
    static const double chance[LOOKUP_LONGEST + 1] = {0, 0.2, 0.4, 0.6};
    *d = (struct drafter){.lookup = d->lookup};
    for (int i = 0; i <= LOOKUP_LONGEST; i++)
        d->right[i] = chance[i];
    if (d->lookup)
        lookup_begin(d->lookup);
}

void drafter_judge(struct drafter *d, const int32_t *tokens, uint32_t n)
{
    static const double weight = 1.0 / 16;
    bool right = true;
    for (uint32_t i = 0; i < n && i < d->n_guess && right; i++) {
        double *chance = &d->right[d->length];
        right = d->guess[i] == tokens[i];
        *chance += weight * (right - *chance);
    }
    d->n_guess = d->n_proposed = 0;
}

/* The number of drafts with which the next step brings most tokens in a second. `bold`: as if they cost nothing, so
 * that what they cost is known. */
static uint32_t worth(const struct drafter *d, struct pace *p, bool bold)
{
    const double chance = d->right[d->length];
    double all_right = 1, made = p->made, best = p->made / step_s(p, p->tokens), best_made = p->made;
    uint32_t n = 0;
    for (uint32_t k = 1; k <= d->n_guess; k++) {
        all_right *= chance;
        made += all_right;
        const double rate = made / step_s(p, p->tokens + k);
        if (bold ? all_right > 0.25 : rate > best) {
            best = rate;
            best_made = made;
            n = k;
        }
    }
    p->made = best_made;
    p->tokens += n;
    return n;
}

uint32_t drafter_propose(struct drafter *d, struct pace *p, const int32_t *text, uint32_t n, uint32_t most)
{
    enum { BOLD = 64 }; /* every so often */
    most = most < DRAFTS_MOST ? most : DRAFTS_MOST;
    if (!d->lookup)
        return 0;
    lookup_take(d->lookup, text, n);
    d->n_guess = lookup_guess(d->lookup, text, n, most, d->guess, &d->length);
    d->n_proposed = d->n_guess ? worth(d, p, ++p->decisions % BOLD == 0) : 0;
    return d->n_proposed;
}
