/* Sums of states, as integers. */
#include "wire/runs.h"

#include <math.h>
#include <string.h>

void wire_sum_state(int64_t *sum, const float *state, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        const float x = fminf(fmaxf(state[i], -WIRE_SUM_MOST), WIRE_SUM_MOST); /* a NaN is a number then */
        sum[i] += (int64_t)rint((double)x * WIRE_SUM_ONE);
    }
}

void wire_sum_put(const int64_t *sum, uint32_t n, float *values)
{
    memcpy(values, sum, n * sizeof *sum);
}

void wire_sum_add(int64_t *sum, const float *values, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        uint64_t more;
        memcpy(&more, values + 2 * (size_t)i, sizeof more);
        sum[i] = (int64_t)((uint64_t)sum[i] + more); /* a peer's sum may be anything */
    }
}

void wire_sum_mean(const int64_t *sum, uint32_t n, uint32_t n_tokens, float *mean)
{
    for (uint32_t i = 0; i < n; i++)
        mean[i] = (float)((double)sum[i] / WIRE_SUM_ONE / n_tokens);
}
