/* What the neuron file's reader and writer (fit/neurons_save.c) share; nobody else includes this. */
#ifndef HEARTH_SPARSITY_NEURONS_FILE_H
#define HEARTH_SPARSITY_NEURONS_FILE_H

#include <stddef.h>
#include "sparsity/neurons.h"

#define NEURONS_ARCH "hearth-neurons"
#define NEURONS_KEY(name) NEURONS_ARCH "." name

enum {
    NEURONS_PREAMBLE_AT = 24, /* behind the GGUF header: magic, version, tensor count, key count */
    NEURONS_PREAMBLE_BYTES = NEURONS_CHECKSUM_AT - NEURONS_PREAMBLE_AT
};

/* The first two keys up to the checksum, the same in every file: so the checksum has a place that is known before
 * anything is parsed. */
extern const char neurons_preamble[NEURONS_PREAMBLE_BYTES + 1];

/* What values a number may have. */
enum neurons_range {
    RANGE_BOUND,    /* any number; an infinite bound says never, or always */
    RANGE_FINITE,
    RANGE_POSITIVE, /* or zero, finite */
    RANGE_SHARE     /* 0 to 1 */
};

/* A float of struct neurons, or one (or `n`) of struct neuron_layer: a scalar key, or an array over the layers. */
struct neurons_field {
    const char *key;
    size_t offset;
    size_t n;
    enum neurons_range range;
};

/* Each ends with a NULL key. */
extern const struct neurons_field neurons_scalars[], neurons_layer_fields[];

/* How many numbers an array has. */
enum neurons_length {
    PER_NEURON,
    PER_EXPERT /* in layers with experts, else there is none */
};

/* An array of struct neuron_layer. */
struct neurons_array {
    const char *name; /* after "blk.N." */
    size_t offset;
    bool required;
    enum neurons_range range;
    enum neurons_length length;
};

enum { NEURONS_ARRAYS = 9 };
extern const struct neurons_array neurons_arrays[NEURONS_ARRAYS];

/* An integer of struct neurons that says how experts lie: keys that only files of models with experts have. */
struct neurons_count {
    const char *key;
    size_t offset;
};

enum { NEURONS_COUNTS = 6 };
extern const struct neurons_count neurons_counts[NEURONS_COUNTS]; /* the first: how many experts there are */

/* Numbers of an array in a layer; 0: it has none. */
int64_t neurons_array_length(const struct neurons *n, int layer, const struct neurons_array *a);

/* The array that `a` describes, of layer `l`. */
const float *neurons_array_of(const struct neuron_layer *l, const struct neurons_array *a);

/* Checks every number and shape, and that what must be there is. `code` is what a wrong one is called: ST_FORMAT or
 * ST_INTERNAL; logged. */
status neurons_check(const struct neurons *n, const char *where, status code);

#endif
