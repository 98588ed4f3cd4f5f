/* The own rows of the output matrix. */
#ifndef HEARTH_DEVICE_CUDA_OUTPUT_H
#define HEARTH_DEVICE_CUDA_OUTPUT_H

#include "device/cuda/cuda.h"
#include "device/loading.h"

struct output {
    struct packed rows;  /* [own rows, d] */
    float *logits;       /* [some tokens, own rows] */
};

void cuda_output_lay_weights(struct cuda *c, struct output *o);
void cuda_output_lay_buffers(struct cuda *c, struct output *o);
void cuda_output_load(struct loading *l, struct output *o);
/* device.h: logits. */
void cuda_output_compute(struct cuda *c, const struct output *o, const struct acts *x, uint32_t n, float *logits,
                         int64_t stride);

#endif
