/* Which own neurons of a layer are computed for which tokens of a step: all for all, or an expert's for those that have
 * chosen it. */
#ifndef HEARTH_DEVICE_CPU_SHARES_H
#define HEARTH_DEVICE_CPU_SHARES_H

#include <stdatomic.h>

#include "device/cpu/input.h"
#include "device/held_neurons.h"

/* A set of neurons and its tokens. */
struct share {
    struct ffn_layer *s;
    const struct down *down;
    uint32_t n;                      /* tokens; as many as the step has: those, in their order */
    const uint32_t *token;           /* [n] which of the step, ascending */
    const float *weight;             /* [n] that their activations are multiplied with; NULL: none */
    struct acts x;                   /* [n, d] what the neurons read */
    struct lane_acts lanes;          /* the same, for single rows */
    float *gate, *up;                /* [n, own] */
    struct acts h;                   /* [n, slots] activations */
    int64_t grain;                   /* blocks of neurons of a piece */
    int64_t first_piece, first_row;  /* of all shares' pieces; of all shares' tokens */
    _Atomic uint64_t fired;          /* pairs of a neuron and a token; where all are computed not counted */
};

struct shares {
    struct share *of;                /* [n] without those that no token has chosen; room for `most` */
    int n, most;
    /* A layer's tokens by bundle, those of bundle b [first[b], first[b + 1]). NULL: no layer has experts. */
    uint32_t *first;
    uint32_t *token;
    float *weight;
    bool *held;                      /* [n_bundles] neurons of it are here */
    struct acts x;                   /* what those tokens read, side by side; of an expert that all have chosen unset */
    struct lane_acts lanes;
    struct lane_acts all;            /* the step's tokens, for single rows */
};

/* ST_NOMEM (logged). */
status shares_new(const struct cpu *c, const struct held_neurons *held, struct shares *out);
void shares_free(struct shares *s); /* {0} is fine */
void shares_lay(struct cpu *c, struct shares *s, bool sparse);
/* s->of = those of a layer that n tokens need, but for gate, up, h and what pieces are. */
void shares_make(struct cpu *c, struct shares *s, const struct held_neurons *held, int layer, const struct input *in,
                 uint32_t n);

#endif
