/* What an FFN puts between its projections. In a layer with a gate the value of a neuron is f(gate, up), without one
 * f(up); `g` below is the gate, or up where there is none. Thread-safe. */
#ifndef HEARTH_BASE_ACTIVATION_H
#define HEARTH_BASE_ACTIVATION_H

#include <stdbool.h>
#include <stddef.h>

enum activation {
    ACT_SILU,  /* silu(g) * up: SwiGLU (Shazeer, GLU Variants, 2020) */
    ACT_RELU,  /* relu(g) * up: ReGLU; without a gate relu(up) */
    ACT_RELU2, /* relu(g)^2 * up; without a gate relu(up)^2 (So et al., Primer, 2021) */
    ACT_DRELU, /* relu(g) * relu(up) (Song et al., TurboSparse, 2024); needs a gate */
    ACT_GELU,  /* gelu(g) * up, gelu by tanh (Hendrycks and Gimpel, 2016): Gemma's GeGLU */
    ACT_SWIGLU_CLAMPED, /* g sigmoid(1.702 g) * (up + 1), g up to 7, up within -7 and 7 (gpt-oss, 2025); needs a gate */
    ACTIVATIONS
};

#define GELU_SCALE 0.79788456080286535588f /* of ACT_GELU, its argument of tanh: sqrt(2 / pi), and the cube's share */
#define GELU_CUBE 0.044715f
#define SWIGLU_LIMIT 7.0f   /* of ACT_SWIGLU_CLAMPED */
#define SWIGLU_SLOPE 1.702f

/* "relu", as options and files name it. */
const char *activation_name(enum activation a);
/* False, leaving *out alone, if there is none of this name (n bytes). */
bool activation_of(const char *name, size_t n, enum activation *out);
/* Whether a neuron whose g is not positive is exactly zero, so that skipping it changes nothing. */
static inline bool activation_is_exact(enum activation a)
{
    return a == ACT_RELU || a == ACT_RELU2 || a == ACT_DRELU;
}
/* Whether a model that its architecture says otherwise of may have been trained with it: what options name. */
static inline bool activation_is_choice(enum activation a) { return a <= ACT_DRELU; }

#endif
