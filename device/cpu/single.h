/* Layers of which single neurons are computed: pairs of a neuron and a token are narrowed down (enum decision), and
 * what is left is computed row by row. */
#ifndef HEARTH_DEVICE_CPU_SINGLE_H
#define HEARTH_DEVICE_CPU_SINGLE_H

#include "device/cpu/shares.h"

/* What a thread needs for it: pairs of an own neuron and a token for which it is computed. */
struct live_scratch {
    int32_t *row, *token;            /* [n_pairs] */
    float *gate, *up;                /* [n_pairs] */
    struct device_counts counts;     /* of this thread, of the layer at hand */
};

/* Neurons [begin, end) of a share, that a thread has. */
struct piece {
    struct cpu *c;
    struct share *of;
    const struct acts *hidden;       /* of an MLP that predicts */
    int64_t begin, end;
    struct live_scratch *live;
};

/* Products of a piece's rows of a packed matrix into y [n, own]. */
void piece_multiply(const struct piece *p, const struct packed *m, const struct acts *x, float *y);
/* y [n, own] += bias [own], of the piece's neurons; NULL: none. */
void piece_add_bias(const struct piece *p, const float *bias, float *y);
/* The activations of the piece's neurons that fire into their slots, which are zero. */
void piece_fire_single(const struct piece *p);

#endif
