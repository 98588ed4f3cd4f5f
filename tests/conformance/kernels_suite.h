/* Inputs for kernels: random and worst-case weights and activations, buffers with canaries. */
#ifndef HEARTH_TESTS_KERNELS_SUITE_H
#define HEARTH_TESTS_KERNELS_SUITE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "kernels/kernels.h"
#include "kernels/rows.h"

/* Reproducible random numbers (splitmix64). */
struct rng {
    uint64_t state;
};
uint64_t rng_next(struct rng *r);
/* In [-1, 1). */
float rng_float(struct rng *r);

/* How values are chosen. */
enum filling {
    FILL_RANDOM,  /* ordinary values */
    FILL_EXTREME, /* largest codes of one sign, large scales: where saturation and overflow would show */
    FILL_TINY,    /* subnormal scales, zeros, alternating signs */
    FILLINGS
};

/* Weights of any type in the file's layout, rows * dtype_row_bytes(); free() them. */
uint8_t *make_weights(struct rng *r, enum dtype type, int64_t rows, int64_t cols, enum filling f);
/* n floats; free() them. */
float *make_floats(struct rng *r, int64_t n, enum filling f);

/* size bytes with canaries around; guarded_intact is false if any changed. */
void *guarded(size_t size);
bool guarded_intact(const void *p, size_t size);
void guarded_free(void *p);

/* A packed matrix in guarded memory, and activations for it, quantised by the scalar reference. */
struct packed make_packed(enum dtype type, int64_t rows, int64_t cols, const uint8_t *weights);
struct acts make_acts(struct rng *r, int64_t n_tokens, int64_t cols, enum filling f);
void free_acts(struct acts *a);

/* The same activations spread over lanes by `k`, in guarded memory; not `quantised`: only as f32. */
struct lane_acts make_lanes(const struct kernels *k, const struct acts *a, int64_t n_tokens, bool quantised);
bool lanes_intact(const struct lane_acts *x, int64_t n_tokens);
void free_lanes(struct lane_acts *x);

/* The codes of the first PLAIN_TYPES are numbers, not numbers of values; the first OWN_TYPES have kernels of their own
 * on GPUs, which those behind them share. */
enum { WEIGHT_TYPES = 25, PLAIN_TYPES = 13, OWN_TYPES = 19 };
extern const enum dtype weight_types[WEIGHT_TYPES];

/* Prints GB/s or GFLOP/s of every operation of `k`. */
void bench_kernels(const struct kernels *k);
/* Prints GB/s of neurons' rows, of the type named `only` (NULL: all). */
void bench_rows(const struct kernels *k, const char *only);

#endif
