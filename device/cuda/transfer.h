/* Inputs and sums, into messages and out of them: through pinned memory. */
#ifndef HEARTH_DEVICE_CUDA_TRANSFER_H
#define HEARTH_DEVICE_CUDA_TRANSFER_H

#include "device/cuda/input.h"

/* What passes through on its way. */
struct transfer {
    struct cuda *c;
    float *scale;        /* [n, d / 32] of an input's blocks */
    uint8_t *width;      /* [n, ceil(d / 32)] of packed sums */
    uint32_t *offset;    /* [n * ceil(d / 32) + 1] */
    uint8_t *packed;     /* [n, ceil(d / 32), 32] f64 at most */
};

void cuda_transfer_lay(struct transfer *t);
void cuda_input_lay(struct cuda *c, struct input *in);

/* device.h: export_input, import_input, export_sums, import_sums. A lost GPU gives no numbers. */
void cuda_input_export(struct transfer *t, const struct work *w, const struct input *in, const struct input_bytes *to);
void cuda_input_import(struct transfer *t, const struct work *w, const struct input_bytes *from, struct input *in);
void cuda_sums_export(struct transfer *t, uint32_t n, const struct sums *sums, bool f16, const struct sum_bytes *to);
void cuda_sums_import(struct transfer *t, uint32_t n, const struct sum_bytes *from, const struct sums *sums);

#endif
