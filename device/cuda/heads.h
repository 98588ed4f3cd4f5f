/* The own KV heads of a layer, and the query heads that share them. */
#ifndef HEARTH_DEVICE_CUDA_HEADS_H
#define HEARTH_DEVICE_CUDA_HEADS_H

#include "device/cuda/cuda.h"
#include "device/loading.h"
#include "kernels/cuda/attention.h"

struct heads {
    int64_t begin, end;              /* of n_kv_heads; equal: none */
    struct packed q, k, v;           /* [own heads * head_dim, d] */
    struct packed o;                 /* [d, own query heads * head_dim], in segments that end where head units do */
    float *q_bias, *k_bias, *v_bias; /* f32; NULL: the model has none */
    float *q_norm, *k_norm;          /* [head_dim] */
    struct gpu_heads of;             /* the same for kernels, and its pages */
};

void cuda_heads_lay(struct cuda *c, int layer, struct heads *h);
void cuda_heads_lay_pages(struct cuda *c, struct heads *h);
void cuda_heads_load(struct loading *l, int layer, struct heads *to);

#endif
