/* Reading the hyper-parameters; for model/ alone. */
#ifndef HEARTH_MODEL_HPARAMS_H
#define HEARTH_MODEL_HPARAMS_H

#include "model/model.h"

/* Bounds of what a file may claim, far beyond any real model, so that later products of dimensions fit int64. */
enum {
    MAX_LAYERS = MOST_LAYERS,
    MAX_D_MODEL = 1 << 20,
    MAX_D_FF = 1 << 22,
    MAX_EXPERTS = 1 << 12,
    MAX_NEURONS = 1 << 26, /* of a layer */
    MAX_HEADS = 1 << 12,
    MAX_HEAD_DIM = 1 << 12,
    MAX_VOCAB = 1 << 24,
};

/* Reads and checks the keys, with llama.cpp's names, defaults and meaning. n_vocab is the embedding's row count. Errors
 * as model_load. */
status hparams_read(const struct gguf *g, struct hparams *out);

#endif
