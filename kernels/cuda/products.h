/* Products with packed matrices (struct packed): the CPU's matmul and matmul_partial. One token or two go through dot
 * products of four bytes, more through the tensor cores where the GPU has those of sm_80. */
#ifndef HEARTH_KERNELS_CUDA_PRODUCTS_H
#define HEARTH_KERNELS_CUDA_PRODUCTS_H

#include "kernels/cuda/gpu.h"
#include "kernels/cuda/shares.h"
#include "kernels/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What multiplies quantised matrices, where the GPU and the segments allow it. */
enum gpu_products { PRODUCTS_FASTEST, PRODUCTS_DOT, PRODUCTS_FEW, PRODUCTS_MMA };

struct gpu_product {
    struct packed m;     /* data on the GPU */
    float *y;            /* [n, y_stride] */
    int64_t y_stride;
    const float *bias;   /* [rows] added to each token's y (one f32 addition), or NULL */
};

enum { MOST_PRODUCTS = 3 };

/* y = m x, for up to MOST_PRODUCTS matrices that read the same x of n tokens, as kernels.h says of matmul. One launch
 * where they have one type. */
void gpu_matmul(const struct gpu *g, const struct gpu_product *p /* host */, int n_products, const struct acts *x,
                int64_t n);

/* to->units = m x as matmul_partial has it; add: += . Sets to->broken[t] where a segment is no number or not below 2^31
 * in magnitude, and leaves it as it is elsewhere: a launch before has cleared it (struct gpu_clearing). */
void gpu_matmul_partial(const struct gpu *g, const struct packed *m, const struct acts *x, int64_t n,
                        const struct gpu_sums *to, bool add);

/* Gates and ups of all shares, as far as their matrices have this type, biases added: gate[share.neurons + t * set.n +
 * r]. gathered: x as gpu_gather has it. */
void gpu_matmul_shares(const struct gpu *g, const struct gpu_shares *s, enum dtype type, const struct acts *x,
                       const struct acts *gathered, int64_t n, float *gate, float *up);
/* to->units += the down projections of all shares, of activations h, as far as their matrices have this type. */
void gpu_matmul_partial_shares(const struct gpu *g, const struct gpu_shares *s, enum dtype type, const struct acts *h,
                               int64_t n, const struct gpu_sums *to);

#ifdef __cplusplus
}
#endif

#endif
