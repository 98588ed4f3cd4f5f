/* Which neurons of a SiLU layer may be skipped: those of small score. */
#ifndef HEARTH_SPARSITY_FIT_THRESHOLD_H
#define HEARTH_SPARSITY_FIT_THRESHOLD_H

#include "sparsity/fit/fit.h"
#include "sparsity/fit/products.h"

/* weight [n] = the norm of each of a bundle's neurons' column of the down projection: what an activation of one adds to
 * the output. ST_NOMEM (logged). */
status fit_weights(const struct bundle *of, int64_t d_model, float *weight);

/* Pairs of a neuron and a token, row by row: what a bundle's neurons are for a token. */
struct scored_rows {
    struct scored *pairs; /* [n] of room for `most` */
    int64_t n, most;
    struct scored_row *rows; /* [n_rows] of room for most_rows */
    int64_t n_rows, most_rows;
};

/* Room for so many. ST_NOMEM (logged); scored_close in any case. */
status scored_open(struct scored_rows *s, int64_t most, int64_t most_rows);
void scored_close(struct scored_rows *s); /* of zeroed memory is fine */
/* Adds a row of n neurons, for which there is room: activations, their estimates, and each neuron's weight; times the
 * token's weight for the bundle. */
void scored_add(struct scored_rows *s, const float *activation, const float *estimate, const float *weight, int64_t n,
                float of_token);

/* The curve of a layer over all its rows, of so many tokens; they are used up. The columns of the down projection count
 * as orthogonal, which is right to a percent. Rows whose output is far larger than the median's do not count: some
 * models keep a bias in the first token so, and the others would vanish beside it. ST_NOMEM (logged). */
status fit_curve(struct scored_rows *s, int64_t n_tokens, struct skip_curve *out);

#endif
