/* How fast the launches of kernels/cuda are on this machine's GPU, at the shapes of a model of 7 billion parameters.
 *
 * Each is measured as decoding has it: many of them one after another in a CUDA graph, each with other weights than the
 * one before, more of them together than the GPU's cache holds. Times are the median of several runs of the graph,
 * divided by its launches. What fails ends the program with a line. */
#ifndef HEARTH_TESTS_GPU_SPEED_H
#define HEARTH_TESTS_GPU_SPEED_H

#include <cuda_runtime_api.h>
#include <jansson.h>
#include "kernels/cuda/gpu.h"
#include "kernels/kernels.h"
#include "tests/conformance/kernels_suite.h"

enum { D_MODEL = 4096, D_FF = 11008, VOCABULARY = 32000, PROMPT = 512 };

struct speed {
    struct gpu gpu;
    int64_t smaller;          /* shapes are divided by this: to try the program where speed is not the matter */
    uint64_t cache_bytes;
    double read_gb_per_s;     /* of the GPU's memory, measured first; 0 before */
    struct rng rng;
    json_t *rows;
};

/* Ends the program unless the CUDA call went well. */
#define CUDA(call) speed_check(call, #call)
void speed_check(cudaError_t e, const char *call);

/* Memory of the GPU, with the same bytes as host[0 .. bytes) (NULL: zeros). speed_free may be given NULL. */
void *speed_copy(const void *host, size_t bytes);
/* `bytes` of memory, whose first `have` are as at `host`, and so the next, and so on. */
void *speed_repeat(const void *host, size_t have, size_t bytes);
void speed_free(void *on_gpu);

/* Activations of n tokens on the GPU; free with speed_free_acts. */
struct acts speed_acts(struct speed *s, int64_t n, int64_t cols);
struct acts speed_acts_copy(const struct acts *host, int64_t n);
void speed_free_acts(struct acts *a);

/* A length of the model, in this run: a multiple of 256. */
int64_t speed_length(const struct speed *s, int64_t n);
/* Tokens, in this run. */
int64_t speed_tokens(const struct speed *s, int64_t n);
/* How many things of that size are more than the GPU's cache holds, two at least. */
int speed_sets(const struct speed *s, uint64_t bytes);

/* Puts the turn-th of a row of launches into the GPU's stream; `of` is the caller's. */
typedef void speed_launch(const struct speed *s, void *of, int turn);
/* Microseconds that one takes. */
double speed_time(struct speed *s, speed_launch *launch, void *of);

/* A line of the table. bytes: that must be read and written, operations: additions and multiplications; 0: it has
 * none. */
struct speed_row {
    const char *family, *what, *type;
    int64_t tokens;
    double us, bytes, operations;
};
void speed_report(struct speed *s, const struct speed_row *row);

/* What there is to measure. */
void speed_memory(struct speed *s); /* first: the others' shares are of what it measures */
void speed_launches(struct speed *s);
void speed_bus(struct speed *s);
void speed_products(struct speed *s);
void speed_stream(struct speed *s);
void speed_attention(struct speed *s);
void speed_neurons(struct speed *s);

#endif
