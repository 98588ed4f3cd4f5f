/* The residual stream at home: the embedding that it begins with, the norms before blocks, what blocks add to it. */
#ifndef HEARTH_DEVICE_CPU_STREAM_H
#define HEARTH_DEVICE_CPU_STREAM_H

#include "device/cpu/input.h"
#include "device/cpu/cpu.h"
#include "device/loading.h"
#include "device/cpu/sums.h"

struct stream;

/* ST_NOMEM (logged). */
status stream_new(struct cpu *c, struct stream **out);
void stream_free(struct stream *s); /* NULL is fine */
void stream_lay_weights(struct stream *s);
void stream_lay_buffers(struct stream *s);
void stream_load(struct stream *s, struct loading *l);

/* device.h: embed, import_states, export_states, norm, add. */
status stream_embed(struct stream *s, const struct batch *b, const int32_t *tokens);
status stream_import(struct stream *s, const struct batch *b, const float *from, const char *what);
void stream_export(const struct stream *s, uint32_t n, float *to);
status stream_norm(struct stream *s, const struct work *w, struct input *in);
status stream_add(struct stream *s, const struct work *w, const struct input *in, const struct sums *sums);

#endif
