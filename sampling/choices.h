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

/* All return how many are kept; n >= 1. Of equal logits the lower id is the better choice. */
/* The k best, best first. O(n + k log k) when the logits are in no order. */
size_t keep_top_k(struct choice *c, size_t n, size_t k);
/* The fewest best whose probabilities reach p, best first; `sorted`: they are in that order already. */
size_t keep_top_p(struct choice *c, size_t n, float p, bool sorted);
/* Those at least min_p times as probable as the best, in their order. */
size_t keep_min_p(struct choice *c, size_t n, float min_p, float best);

#endif
