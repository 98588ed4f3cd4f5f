/* Layers with experts: sets of neurons, of which each token needs but some. A launch covers all sets that the tokens of
 * a step have chosen, whichever these are: only the GPU knows. */
#ifndef HEARTH_KERNELS_CUDA_SHARES_H
#define HEARTH_KERNELS_CUDA_SHARES_H

#include "base/activation.h"
#include "kernels/columns.h"
#include "kernels/cuda/gpu.h"
#include "kernels/cuda/neurons.h"
#include "kernels/cuda/router.h"
#include "kernels/kernels.h"
#include "kernels/rows.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { GPU_ALL_TOKENS = -1 };

/* A set of neurons of a layer; what it does not have is empty. It lies on the GPU, where its arrays are. */
struct gpu_set {
    int32_t expert;          /* whose neurons they are; GPU_ALL_TOKENS */
    int32_t n;               /* neurons */
    int32_t slots;           /* of a token's activations (kernels/columns.h) */
    bool quantised;          /* the down projection reads them so */
    const int32_t *slot;     /* [n] */
    const int32_t *column;   /* [slots] which neuron a slot is, -1: none; NULL: slots are neurons */
    struct packed gate, up;  /* of a layer without a gate, up is in its place */
    struct neuron_rows gate_rows, up_rows;
    const float *bias, *up_bias; /* [n] of the gate's place, of up */
    const float *bound;      /* [n] and the following: as in struct ffn_layer */
    const float *gate_slope, *gate_offset, *up_slope, *up_offset;
    struct packed down;
    struct neuron_columns columns;
    const struct gpu_range *ranges;
    int32_t n_ranges;
    uint64_t bytes;          /* of weights that are read whatever fires */
};

/* A set and those of a step's tokens that need it. */
struct gpu_share {
    int32_t set;
    uint32_t n;              /* tokens */
    uint32_t first;          /* of them in the lists */
    bool whole;              /* x is read where it lies, and sums belong to tokens as they come: all of them, or the
                              * only one */
    uint32_t neurons, slots; /* where gates and ups begin, and activations: [n, set.n], [n, set.slots] */
};

/* A layer's shares. */
struct gpu_shares {
    const struct gpu_set *sets; /* [n_sets] the layer's */
    int n_sets;
    struct gpu_share *of;    /* [n_sets] of which *n are set */
    uint32_t *n;
    uint32_t *token;         /* [n used] tokens by the expert that they have chosen */
    float *weight;           /* [n used + n] what the activations of each are multiplied with; last those of what is
                              * shared */
    /* Of the host, bounds of what launches cover. */
    int most;                /* shares */
    int rows, slots, ranges; /* of a set */
    bool gate_planes, up_planes; /* rows that are read one by one are in planes, where their type has some */
    int outputs;             /* of down projections */
};

/* Makes the shares of n tokens. counts grows by what all of them read, and, `dense`, fire. */
void gpu_share_tokens(const struct gpu *g, const struct gpu_shares *s, const struct gpu_router *r,
                      const struct gpu_routes *routes, int64_t n, bool dense, struct gpu_counts *counts);

/* to [n used] = x of the tokens in the lists, but of sets that read x where it lies. */
void gpu_gather(const struct gpu *g, const struct gpu_shares *s, const struct acts *x, int64_t n, bool codes,
                bool floats, const struct acts *to);

/* Activations of all neurons of the shares: h = activate(gate, up) times the token's weight, as gpu_activate. gate and
 * up NULL where the layer has none. */
void gpu_activate_shares(const struct gpu *g, const struct gpu_shares *s, enum activation a, const float *gate,
                         const float *up, int64_t n, const struct acts *h, const struct gpu_clearing *clearing);

/* Of sets that decide which neurons fire. ups: those of the up rows, into `to` as gates. */
void gpu_estimate_shares(const struct gpu *g, const struct gpu_shares *s, enum dtype type, bool ups,
                         const struct acts *x, const struct acts *gathered, int64_t n, float *to);
/* gpu_estimate_products of all shares, times the token's weight, in place in gate. */
void gpu_estimate_share_products(const struct gpu *g, const struct gpu_shares *s, enum activation a, float *gate,
                                 const float *up, int64_t n);
/* gpu_pick: pairs of a share's neuron and token, which know the share. by_bound: each neuron has a bound of its own.
 * Clears the shares' activations too. */
void gpu_pick_shares(const struct gpu *g, const struct gpu_shares *s, const float *value, int64_t n, float bound,
                     bool by_bound, bool keep, const struct gpu_pairs *to, struct gpu_counts *counts, float *h,
                     const struct gpu_clearing *clearing);
/* gpu_gate_pairs and gpu_activate_pairs of those pairs, as far as their rows have this type; activations are multiplied
 * with the token's weight. most: pairs that there can be. */
void gpu_gate_share_pairs(const struct gpu *g, const struct gpu_shares *s, enum dtype type, const struct acts *x,
                          const struct acts *gathered, int64_t most, const struct gpu_pairs *pairs);
void gpu_activate_share_pairs(const struct gpu *g, const struct gpu_shares *s, enum dtype type, enum activation a,
                              const struct acts *x, const struct acts *gathered, bool all, int64_t most,
                              const struct gpu_pairs *pairs, float *h, struct gpu_counts *counts);

/* to->units += the columns of live neurons of all shares, as far as they have this type, times activations h
 * (gpu_mix_columns). */
void gpu_mix_shares(const struct gpu *g, const struct gpu_shares *s, enum dtype type, const struct acts *h, int64_t n,
                    const struct gpu_sums *to);

#ifdef __cplusplus
}
#endif

#endif
