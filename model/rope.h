/* Reading what keys say of rotary positions; for model/ alone. */
#ifndef HEARTH_MODEL_ROPE_H
#define HEARTH_MODEL_ROPE_H

#include "model/hparams.h"
#include "model/keys.h"

/* Fills in n_rot, the first rope and the original context, with llama.cpp's names, defaults and meaning; head_dim and
 * n_ctx_train are known. ST_FORMAT, ST_UNSUPPORTED (logged). */
status rope_read(const struct keys *k, struct hparams *hp);
/* The same rope without scaling of positions, and of cosines and sines by YaRN. */
struct rope rope_unscaled(const struct rope *r);
/* The factor that YaRN's cosines and sines get of a scale: 1 + 0.1 factor ln(1 / scale). */
double rope_yarn_magnitude(double scale, double factor);

#endif
