/* A holder's part of the attention block: o(attention(rope(qkv(x)))) of its KV heads and the query heads that share
 * them (Vaswani et al., 2017; one KV head: Shazeer, 2019; grouped queries: Ainslie et al., 2023; sliding window: Jiang
 * et al., Mistral 7B, 2023). The output projection is summed in segments that end with head units (kernels.h,
 * SEGMENT_GRID), so the parts of all holders add up to the same bits wherever the heads are cut. */
#ifndef HEARTH_DEVICE_CPU_ATTENTION_H
#define HEARTH_DEVICE_CPU_ATTENTION_H

#include "device/cpu/cpu.h"
#include "device/loading.h"

struct attention;

/* ST_UNSUPPORTED for heads that are too large, ST_NOMEM; logged. */
status attention_new(struct cpu *c, struct attention **out);
void attention_free(struct attention *a); /* NULL is fine */
void attention_lay_weights(struct attention *a, int layer);
void attention_lay_pages(struct attention *a);
void attention_lay_buffers(struct attention *a);
void attention_load(struct attention *a, struct loading *l, int layer);
/* sum[n, d] = the part of the own heads, for the tokens of the work's batch, whose keys and values are kept. */
void attention_compute(struct attention *a, const struct work *w, const struct acts *x, double *sum);
void attention_copy_page(struct attention *a, int layer, uint32_t from, uint32_t to);

#endif
