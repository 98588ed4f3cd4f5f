#include "sampling/log_prob.h"

#include "base/exactmath.h"
#include "sampling/choices.h"

double log_total(const float *logits, int32_t n_vocab)
{
    double sum = 0;
    float best = logits[0];
    for (int32_t i = 1; i < n_vocab; i++)
        best = logits[i] > best ? logits[i] : best;
    for (int32_t i = 0; i < n_vocab; i++)
        sum += choice_weight(logits[i], best, 1);
    return (double)best + log_f64(sum);
}

uint32_t log_prob_top(struct sampler_scratch *scratch, const float *logits, double total, uint32_t most,
                      struct log_prob *top)
{
    size_t n = 0;
    for (int32_t i = 0; i < scratch->n_vocab && most; i++)
        n = top_k_offer(scratch->choices, n, most, (struct choice){logits[i], i});
    n = top_k_sort(scratch->choices, n, most);
    for (size_t i = 0; i < n; i++)
        top[i] = (struct log_prob){scratch->choices[i].id, log_prob(logits, total, scratch->choices[i].id)};
    return (uint32_t)n;
}
