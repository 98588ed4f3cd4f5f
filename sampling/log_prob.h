/* Log probabilities of tokens, by the logits alone: neither penalties nor temperature count. Logits are finite. The
 * same bits on every machine. */
#ifndef HEARTH_SAMPLING_LOG_PROB_H
#define HEARTH_SAMPLING_LOG_PROB_H

#include <stdint.h>
#include "sampling/sampler.h"

struct log_prob {
    int32_t id;
    float log_p; /* <= 0 */
};

/* ln of the sum of e^logit over all tokens: a token's log probability is its logit less that. The terms, relative to
 * the largest, are added in f64 in order of id. */
double log_total(const float *logits, int32_t n_vocab);
/* Of one token. */
static inline float log_prob(const float *logits, double total, int32_t id)
{
    return (float)((double)logits[id] - total);
}
/* The `most` best tokens, best first, of equals the lower id; fewer if the vocabulary has fewer. Returns how many. */
uint32_t log_prob_top(struct sampler_scratch *scratch, const float *logits /* [n_vocab] f32 */, double total,
                      uint32_t most, struct log_prob *top);

#endif
