/* The own neurons of all layers, and the down projections of guests. */
#ifndef HEARTH_DEVICE_CUDA_FFN_H
#define HEARTH_DEVICE_CUDA_FFN_H

#include "device/cuda/input.h"
#include "device/loading.h"

struct ffn;

/* ST_NOMEM (logged). */
status cuda_ffn_new(struct cuda *c, struct ffn **out);
void cuda_ffn_free(struct ffn *f); /* NULL is fine */
void cuda_ffn_lay_weights(struct ffn *f, int layer);
void cuda_ffn_lay_buffers(struct ffn *f);
void cuda_ffn_load(struct ffn *f, struct loading *l, int layer);

/* device.h: part, fire, live, project. */
void cuda_ffn_compute(struct ffn *f, const struct work *w, const struct input *in, const struct sums *sums);
uint32_t cuda_ffn_fire(struct ffn *f, const struct work *w, const struct input *in);
void cuda_ffn_live(struct ffn *f, const struct work *w, const struct live *to);
void cuda_ffn_project(struct ffn *f, const struct work *w, int guest, const struct live *from, const struct sums *sums);
/* Adds what the GPU has counted, as far as it was known at the last wait, and had not been asked for. */
void cuda_ffn_count(struct ffn *f, struct device_counts *counts);
/* Counters in struct notes: of sets of neurons, or of layers with experts. */
int cuda_ffn_counters(const struct ffn *f);

#endif
