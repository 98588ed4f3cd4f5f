/* Two small shapes for hearth-synth's models: with gates and rotated positions, and with neither. */
#ifndef HEARTH_TESTS_SMALL_SHAPES_H
#define HEARTH_TESTS_SMALL_SHAPES_H

#include "tools/synth/synth.h"

enum { LAYERS = 2, NEURONS = 1024, WORDS = 600 };

static const struct shape llama = {.name = "llama", .architecture = LLAMA, .layers = LAYERS, .d_model = 256,
                                   .d_ff = NEURONS, .heads = 4, .kv_heads = 2, .head_dim = 64, .vocab = WORDS,
                                   .context = 512, .rope_base = 10000};
static const struct shape opt = {.name = "opt", .architecture = OPT, .layers = LAYERS, .d_model = 256,
                                 .d_ff = NEURONS, .heads = 4, .kv_heads = 4, .head_dim = 64, .vocab = WORDS,
                                 .context = 512, .tied = true};

#endif
