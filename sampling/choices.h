/* Tokens that may be picked, with their logits, and the ways to leave some of them out. An array of choices is narrowed
 * in place, the kept ones in front. Private to sampling/. Thread-safe. */
#ifndef HEARTH_SAMPLING_CHOICES_H
#define HEARTH_SAMPLING_CHOICES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct choice {
    float logit;
    int32_t id;
};

/* e^((logit - best) / temperature), 1 for the best whatever it is (infinite too). */
double choice_weight(float logit, float best, float temperature);
/* The largest logit of n >= 1. */
float choices_best(const struct choice *c, size_t n);

/* The larger logit first, the lower id among equals: a total order, so selection does not depend on how it is done. */
static inline bool better(struct choice a, struct choice b)
{
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

/* The k >= 1 best of those that come: top [n, of k] takes one more or leaves it, and top_k_sort puts them in order,
 * best first, when all have come. Both return n. O(1) for nearly all of many choices in no order. */
size_t top_k_take(struct choice *top, size_t n, size_t k, struct choice c);
static inline size_t top_k_offer(struct choice *top, size_t n, size_t k, struct choice c)
{
    return n < k || better(c, top[0]) ? top_k_take(top, n, k, c) : n;
}
size_t top_k_sort(struct choice *top, size_t n, size_t k);

/* Both return how many are kept; n >= 1. */
/* The fewest best whose probabilities reach p, best first; `sorted`: they are in that order already. */
size_t keep_top_p(struct choice *c, size_t n, float p, bool sorted);
/* Those at least min_p times as probable as the best, in their order. */
size_t keep_min_p(struct choice *c, size_t n, float min_p, float best);

#endif
