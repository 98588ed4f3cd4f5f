#include "tools/synth/firing.h"

#include <math.h>
#include "tools/synth/random.h"

#define BIAS_MAX 6.0 /* it fires, or does not, for good */

static double phi(double x) { return 0.5 * erfc(-x * M_SQRT1_2); }

/* The x with phi(x) = p. */
static double probit(double p)
{
    double low = -BIAS_MAX, high = BIAS_MAX;
    for (int i = 0; i < 40; i++) {
        double middle = (low + high) / 2;
        *(phi(middle) < p ? &low : &high) = middle;
    }
    return (low + high) / 2;
}

/* The probability of the neuron that fires i-th most often, for a power law of this height. */
static double probability(double height, double skew, double most, uint32_t i, uint32_t n)
{
    return fmin(most, height * pow((i + 0.5) / n, -skew));
}

/* The height that gives the wanted mean. */
static double find_height(double live, double skew, double most, uint32_t n)
{
    double low = 0, high = 1; /* of a height of 1 all are at the most */
    for (int i = 0; i < 40; i++) {
        double height = (low + high) / 2, sum = 0;
        for (uint32_t k = 0; k < n; k++)
            sum += probability(height, skew, most, k, n);
        *(sum < live * n ? &low : &high) = height;
    }
    return high;
}

static void shuffle(uint64_t seed, uint32_t n, float *v)
{
    struct random r = {seed};
    for (uint32_t i = n; i > 1; i--) {
        uint32_t j = (uint32_t)(draw(&r) % i);
        float swap = v[i - 1];
        v[i - 1] = v[j];
        v[j] = swap;
    }
}

void firing_biases(float live, float skew, bool both, uint64_t seed, uint32_t n, float *bias)
{
    /* Nearly always, but where nearly all neurons fire the most frequent ones must leave room for the mean. */
    double most = fmax(0.99, 1 - (1 - live) / 10), height = find_height(live, skew, most, n);
    for (uint32_t i = 0; i < n; i++) {
        double p = probability(height, skew, most, i, n);
        bias[i] = (float)probit(both ? sqrt(p) : p);
    }
    shuffle(seed, n, bias);
}

double firing_square(const float *bias, uint32_t n, bool both)
{
    double sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        double b = bias[i], square = (b * b + 1) * phi(b) + b * exp(-b * b / 2) / sqrt(2 * M_PI);
        sum += both ? square * square : square;
    }
    return sum / n;
}
