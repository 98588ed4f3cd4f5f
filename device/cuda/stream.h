/* The residual stream at home: the embedding that it begins with, the norms before blocks, what blocks add to it. */
#ifndef HEARTH_DEVICE_CUDA_STREAM_H
#define HEARTH_DEVICE_CUDA_STREAM_H

#include "device/cuda/input.h"
#include "device/loading.h"

struct stream;

/* ST_NOMEM (logged). */
status cuda_stream_new(struct cuda *c, struct stream **out);
void cuda_stream_free(struct stream *s); /* NULL is fine */
void cuda_stream_lay_weights(struct stream *s);
void cuda_stream_lay_buffers(struct stream *s);
void cuda_stream_load(struct stream *s, struct loading *l);

/* device.h: embed, import_states, export_states, passing, give_states, take_states, norm, add. What is no number is
 * noted, and returned later. */
void cuda_stream_embed(struct stream *s, const struct batch *b, const int32_t *tokens);
void cuda_stream_import(struct stream *s, const struct batch *b, const float *from, const char *what);
void cuda_stream_export(const struct stream *s, uint32_t n, float *to);
float *cuda_stream_passing(const struct stream *s, uint32_t i);
void cuda_stream_give(const struct stream *s, uint32_t n, float *to);
void cuda_stream_take(struct stream *s, const struct batch *b, const float *from, const char *what);
void cuda_stream_norm(struct stream *s, const struct work *w, struct input *in);
void cuda_stream_add(struct stream *s, const struct work *w, const struct input *in, const struct sums *sums);

#endif
