/* A model of shapes alone, which plans are weighed by: f32 weights that nobody reads. */
#ifndef HEARTH_TESTS_SHAPES_MODEL_H
#define HEARTH_TESTS_SHAPES_MODEL_H

#include "model/model.h"

/* q, k, v, o of d x d; gate, up, down of d_ff x d; 8 heads; the output of n_vocab x d. layers [n_layers] and the bundle
 * that all of them have are borrowed. */
static inline void shapes_model(int n_layers, int64_t d, int64_t d_ff, int64_t n_vocab, struct layer_weights *layers,
                                struct bundle *bundle, struct model *out)
{
    static const uint8_t somewhere;
    const struct matrix square = {DT_F32, d, d, &somewhere, "square"}, wide = {DT_F32, d_ff, d, &somewhere, "wide"};
    *out = (struct model){.layers = layers, .output = {DT_F32, n_vocab, d, &somewhere, "output"}};
    out->hp = (struct hparams){.n_layers = n_layers, .d_model = d, .d_ff = d_ff, .has_gate = true, .n_vocab = n_vocab,
                               .n_kv_heads = 8, .n_heads = 8, .head_dim = d / 8};
    *bundle = (struct bundle){.n = d_ff, .gate = wide, .up = wide, .down = {DT_F32, d, d_ff, &somewhere, "down"}};
    for (int l = 0; l < n_layers; l++)
        layers[l] = (struct layer_weights){.q = square, .k = square, .v = square, .o = square, .bundles = bundle,
                                           .n_bundles = 1};
}

#endif
