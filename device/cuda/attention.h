/* A holder's part of the attention block: o(attention(rope(qkv(x)))) of its KV heads and the query heads that share
 * them. Its bits are those of device/cpu/attention.c. */
#ifndef HEARTH_DEVICE_CUDA_ATTENTION_H
#define HEARTH_DEVICE_CUDA_ATTENTION_H

#include "device/cuda/input.h"
#include "device/loading.h"

struct attention;

/* ST_UNSUPPORTED for heads that kernels do not take, ST_NOMEM; logged. */
status cuda_attention_new(struct cuda *c, struct attention **out);
void cuda_attention_free(struct attention *a); /* NULL is fine */
void cuda_attention_lay_weights(struct attention *a, int layer);
void cuda_attention_lay_pages(struct attention *a);
void cuda_attention_lay_buffers(struct attention *a);
void cuda_attention_load(struct attention *a, struct loading *l, int layer);
/* Puts the batch's positions and tables there, so that a step need not stop for it. */
void cuda_attention_prepare(struct attention *a, const struct batch *b);
/* sums = the part of the own heads, for the tokens of the work's batch, whose keys and values are kept. */
void cuda_attention_compute(struct attention *a, const struct work *w, const struct input *in, const struct sums *sums);
void cuda_attention_copy_page(struct attention *a, int layer, uint32_t from, uint32_t to);

#endif
