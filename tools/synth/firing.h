/* How often each neuron of a layer fires. */
#ifndef HEARTH_TOOLS_SYNTH_FIRING_H
#define HEARTH_TOOLS_SYNTH_FIRING_H

#include <stdbool.h>
#include <stdint.h>

/* Biases of a layer's neurons in units of the deviation of what they are added to, so that neuron j fires with
 * probability Phi(bias[j]): a power law of this exponent, cut off at nearly always, in an order that the seed draws.
 * Where two projections must agree, `both`, each is given the root of the probability. */
void firing_biases(float live, float skew, bool both, uint64_t seed, uint32_t n, float *bias /* [n] */);
/* Mean over neurons of E relu(bias + N(0, 1))^2; of the square of it if `both`: two projections have this bias. */
double firing_square(const float *bias, uint32_t n, bool both);

#endif
