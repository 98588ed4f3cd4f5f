/* The tensors of a model and what is in them. */
#ifndef HEARTH_TOOLS_SYNTH_TENSORS_H
#define HEARTH_TOOLS_SYNTH_TENSORS_H

#include <stdbool.h>
#include <stdint.h>
#include "base/dtype.h"
#include "base/status.h"
#include "tools/synth/synth.h"

enum content {
    RANDOM,     /* blocks of this deviation; the first zero_rows rows are zero */
    EMBEDDING,  /* the same, but the constant columns say 1 */
    DECIDING_ROWS, /* rows of neurons that decide who fires */
    LEVELS,     /* f32: `first` in the constant columns, `rest` in the others */
    ROUTER,     /* f32: rows of this deviation */
    NOISE,      /* f32: small biases */
    UP_BIAS,    /* f32: neurons' biases, of a model that has such */
    ROPE        /* f32: Llama 3's divisors */
};

struct tensor {
    char name[64];
    enum dtype type;
    int64_t cols, rows; /* all of them */
    int64_t slabs;      /* that the rows are in, of three dimensions; 0: of two */
    uint64_t bytes;
    enum content content;
    float deviation;
    int64_t zero_rows;
    float first, rest;
    int layer;          /* -1: of no layer */
    bool ffn_norm;
};


/* The columns that carry biases: opt has none. */
int64_t constant_columns(const struct shape *s);
bool is_sparse(const struct synth_options *o);
/* Biases of a layer's neurons. */
void layer_biases(const struct synth_options *o, int layer, float *bias /* [d_ff] */);
/* The model's tensors in the order of the file, malloc'ed; NULL if out of memory. */
struct tensor *list_tensors(const struct synth_options *o, int *n);

#endif
