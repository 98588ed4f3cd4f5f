/* Finding tensors in a model's file; for model/ alone. */
#ifndef HEARTH_MODEL_WEIGHTS_H
#define HEARTH_MODEL_WEIGHTS_H

#include <stddef.h>

#include "model/model.h"

enum { TENSOR_NAME = 64 };

/* What a tensor is for, which decides the types it may have. */
enum role {
    ROLE_MATRIX, /* any weight type */
    ROLE_FLOATS, /* a matrix of floats */
    ROLE_VECTOR, /* norms and biases: floats */
    ROLE_F32,    /* numbers that are read one by one */
};

/* What a tensor must look like. */
struct tensor_need {
    enum role role;
    int64_t rows, cols;
    int64_t slabs; /* of so many rows each, one after the other: an expert's; 0: the tensor has no third dimension */
};

enum presence { NEVER, MAYBE, ALWAYS };

/* One tensor of every layer, and where its matrix lies in struct layer_weights. */
struct layer_tensor {
    const char *name;
    size_t offset;
    enum presence presence;
    struct tensor_need need;
};

#define AT(field) offsetof(struct layer_weights, field)

struct finder {
    const struct gguf *g;
    bool *used; /* [n_tensors] */
};

/* The tensor as a matrix; one that need not be there leaves *out alone. ST_FORMAT, ST_UNSUPPORTED (logged). */
status find_optional(struct finder *f, const char *name, struct tensor_need n, struct matrix *out);
status find_required(struct finder *f, const char *name, struct tensor_need n, struct matrix *out);
/* Finds a table's tensors ("blk.LAYER.NAME"); absent ones leave their matrix alone. Of slabs the matrix has all rows,
 * one slab after the other. ST_FORMAT, ST_UNSUPPORTED (logged). */
status find_table(struct finder *f, int layer, const struct layer_tensor *table, size_t n, struct layer_weights *w);
/* NULL: the layer has no such tensor. */
const struct gguf_tensor *layer_tensor(const struct finder *f, int layer, const char *name);

/* Rows [begin, end) of a matrix; of an absent one nothing. */
struct matrix rows_of(const struct matrix *m, int64_t begin, int64_t end);

/* Columns [begin, end) of a vector. */
struct matrix columns_of(const struct matrix *m, int64_t begin, int64_t end);

#endif
