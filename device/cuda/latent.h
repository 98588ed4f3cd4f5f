/* What goes before and after attention where a token's keys and values are one latent vector c (struct latent in
 * model/model.h), as device/cpu/latent.h does it. */
#ifndef HEARTH_DEVICE_CUDA_LATENT_H
#define HEARTH_DEVICE_CUDA_LATENT_H

#include "device/cuda/cuda.h"
#include "device/heads.h"
#include "device/latent_room.h"
#include "kernels/cuda/attention.h"

/* A batch in a layer. */
struct latent_work {
    struct cuda *c;
    struct latent_room *room;
    const struct heads *h;
    const struct gpu_heads *of;
    const struct gpu_batch *batch;
    const struct acts *x;
};

/* Keeps c and the turned key of the tokens, and makes q [n, heads * (rank + n_rot)]. The sums begin. */
void cuda_latent_project(const struct latent_work *w, float *q, const struct gpu_clearing *clearing);
/* values [n, heads * value_dim], from room->mixed. */
void cuda_latent_read(const struct latent_work *w, float *values);
/* Whether what attention gives is read as codes. */
bool cuda_latent_reads_codes(const struct heads *h);

#endif
