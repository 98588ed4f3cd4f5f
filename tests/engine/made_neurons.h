/* A neuron file for a made model, with whatever predictor a test wants. */
#ifndef HEARTH_TESTS_MADE_NEURONS_H
#define HEARTH_TESTS_MADE_NEURONS_H

#include "sparsity/fit/neurons_save.h"
#include "sparsity/neurons.h"
#include "tests/engine/trace.h"

enum { MADE_HIDDEN = 64, MADE_LAYERS = 4, MADE_NEURONS = 672 };

/* `bound`, `skip` and `mlp` decide how much is skipped. Whatever types the MLP has, its numbers are the same, but for
 * rounding to them. */
struct made_recipe {
    enum activation activation;
    float bound, skip, mlp;
    enum dtype fc1, fc2; /* Q8_0, or F32, F16, BF16 */
};

/* Weights of Q8_0 as another type of floats; frees them. */
static inline uint8_t *made_as(enum dtype type, uint8_t *q8, uint32_t rows, uint32_t cols)
{
    if (type == DT_Q8_0)
        return q8;
    const size_t n = (size_t)rows * cols, width = dtype_row_bytes(type, 1);
    uint8_t *out = malloc(n * width);
    float *f = malloc(n * sizeof *f);
    assert_true(out && f);
    dequantize_row(DT_Q8_0, q8, (int64_t)n, f);
    for (size_t i = 0; i < n; i++) {
        if (type == DT_F16)
            made_half(out + i * width, f[i]);
        else
            memcpy(out + i * width, (uint8_t *)&f[i] + (4 - width), width);
    }
    free(f);
    free(q8);
    return out;
}

static inline void made_neurons_write(const char *model_path, const struct made_model *m, const struct made_recipe *r,
                                      char path[MADE_NAME])
{
    static struct neuron_layer layers[MADE_LAYERS];
    static float bound[MADE_NEURONS], weight[MADE_NEURONS], share[MADE_NEURONS];
    uint8_t *fc1[MADE_LAYERS], *fc2[MADE_LAYERS];
    struct model *model;
    uint64_t state = 3;
    assert_true(m->layers <= MADE_LAYERS && m->d_ff <= MADE_NEURONS);
    assert_int_equal(model_load(model_path, &model), ST_OK);
    const struct neurons n = {.activation = r->activation, .n_layers = (int)m->layers, .d_model = m->d_model,
                              .d_ff = m->d_ff, .model_hash = gguf_hash(model->file), .n_tokens = 1000,
                              .skip_share = 0.5f, .layers = layers};
    for (uint32_t i = 0; i < m->d_ff; i++) {
        bound[i] = r->bound;
        weight[i] = 0.5f + (float)(i % 7) / 7;
        share[i] = 0.5f;
    }
    for (uint32_t l = 0; l < m->layers; l++) {
        layers[l] = (struct neuron_layer){.fired = share, .strength = share, .live = 0.5f, .weight = weight,
                                          .bound = bound, .mlp_threshold = r->mlp};
        for (int i = 0; i < SKIP_STEPS; i++)
            layers[l].skip[i] = r->skip * (float)(i + 1) / 5;
        fc1[l] = made_as(r->fc1, made_weights(DT_Q8_0, MADE_HIDDEN, m->d_model, 1, &state), MADE_HIDDEN, m->d_model);
        fc2[l] = made_as(r->fc2, made_weights(DT_Q8_0, m->d_ff, MADE_HIDDEN, 1, &state), m->d_ff, MADE_HIDDEN);
        layers[l].fc1 = (struct matrix){r->fc1, MADE_HIDDEN, m->d_model, fc1[l], "fc1"};
        layers[l].fc2 = (struct matrix){r->fc2, m->d_ff, MADE_HIDDEN, fc2[l], "fc2"};
    }
    made_file_of("", 0, path);
    assert_int_equal(neurons_save(&n, path), ST_OK);
    for (uint32_t l = 0; l < m->layers; l++) {
        free(fc1[l]);
        free(fc2[l]);
    }
    model_free(model);
}

#endif
