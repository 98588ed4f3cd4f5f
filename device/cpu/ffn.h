/* The own neurons of all layers, and the down projections of guests. */
#ifndef HEARTH_DEVICE_CPU_FFN_H
#define HEARTH_DEVICE_CPU_FFN_H

#include "device/cpu/input.h"
#include "device/loading.h"
#include "device/cpu/sums.h"

struct ffn;

/* ST_NOMEM (logged). */
status ffn_new(struct cpu *c, struct ffn **out);
void ffn_free(struct ffn *f); /* NULL is fine */
void ffn_lay_weights(struct ffn *f, int layer);
void ffn_lay_buffers(struct ffn *f);
void ffn_load(struct ffn *f, struct loading *l, int layer);

/* device.h: part, fire, live, project. */
void ffn_compute(struct ffn *f, const struct work *w, const struct input *in, struct sums *sums);
uint32_t ffn_fire(struct ffn *f, const struct work *w, const struct input *in);
void ffn_live(struct ffn *f, const struct work *w, const struct live *to);
void ffn_project(struct ffn *f, const struct work *w, int guest, const struct live *from, struct sums *sums);
/* Shows device.h's `observe` the layer that was computed last, from `in`. */
void ffn_observe(const struct ffn *f, const struct work *w, const struct input *in);

#endif
