/* Products of a layer's matrices with its samples, as the engine computes them. Used by one thread at a time; the
 * pool's threads work for it. */
#ifndef HEARTH_SPARSITY_FIT_PRODUCTS_H
#define HEARTH_SPARSITY_FIT_PRODUCTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/status.h"
#include "base/threads.h"
#include "kernels/kernels.h"
#include "kernels/rows.h"
#include "model/model.h"

/* Memory aligned for the kernels, to be freed; n values of `size` bytes. NULL if there is none (logged). */
void *products_alloc(int64_t n, size_t size);

struct products {
    const struct kernels *kernels;
    struct pool *pool;      /* borrowed */
    int64_t n;
    struct acts acts;       /* [n, cols]; f32 owned too, to be filled by whoever opened it */
    struct lane_acts lanes;
};

/* Makes room for n activations of `cols` values; free with products_close, also after ST_NOMEM (logged). */
status products_open(struct products *p, const struct kernels *k, struct pool *pool, int64_t n, int64_t cols);
/* Quantises acts.f32, as the engine does. */
void products_quantize(struct products *p);
void products_close(struct products *p); /* of zeroed memory is fine */

/* out [n, w->rows] = the products with w. ST_NOMEM (logged). */
status products_exact(const struct products *p, const struct matrix *w, float *out);
/* The same from the top bits of w's codes alone; w has planes (dtype_has_planes). */
status products_estimate(const struct products *p, const struct matrix *w, float *out);
/* live [n, d_ff] = which neurons fire, from what decides (value + bias [d_ff], or NULL: none), and where that does not
 * suffice (dReLU) from up as well (NULL: it does). */
void products_live(const float *value, const float *bias, const float *up, int64_t n, int64_t d_ff, bool *live);

#endif
