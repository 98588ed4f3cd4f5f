#ifndef HEARTH_DEVICE_CUDA_INPUT_H
#define HEARTH_DEVICE_CUDA_INPUT_H

#include "device/cuda/cuda.h"
#include "kernels/cuda/router.h"

struct input {
    struct acts acts;      /* [n, d] */
    float *residual;       /* [n, d] x itself, where predictors read it: the stream's, or */
    float *laid;           /* what was imported; NULL: predictors read none */
    struct gpu_routes routes; /* of the layer; NULL: no layer has experts */
};

struct sums {
    struct gpu_sums of;    /* [n, d] */
};

#endif
