/* Operations that wait to be launched together. Launching a kernel takes the host longer than a small one takes the
 * GPU, so what is asked for is kept until something needs it, and a list that has been seen before is launched as one
 * CUDA graph. Steps of few tokens are alike: their lists differ in nothing but what lies in the GPU's memory.
 *
 * Whatever goes into the stream besides flushes first; so do uploads, and a wait. */
#ifndef HEARTH_DEVICE_CUDA_QUEUE_H
#define HEARTH_DEVICE_CUDA_QUEUE_H

#include <stdbool.h>
#include <stdint.h>
#include <cuda_runtime_api.h>
#include "base/status.h"
#include "device/device.h"

struct cuda;

/* A block's or norm's place in a step. */
struct op_place {
    int32_t part, layer;             /* enum device_part */
    uint32_t order;                  /* of struct gpu_fault */
    uint32_t chosen;                 /* of the tokens that are chosen; else of all */
};

/* What is launched follows from this alone, and is the same whenever this is. Compared as bytes. */
struct operation {
    void (*launch)(void *object, const struct operation *o);
    void *object;
    const void *in;                  /* struct input */
    const void *sums;                /* struct sums */
    uint64_t n;                      /* tokens */
    uint64_t most_positions;         /* struct gpu_batch */
    struct op_place at, next;        /* next: of a norm in the same launch */
};

enum { QUEUED_TOKENS = 64, GRAPHS = 256, REMEMBERED = 1024 };

struct graph {
    struct operation *ops;           /* [n] */
    int n;
    uint64_t hash, used;             /* used: when, by queue.flushes */
    cudaGraphExec_t exec;            /* NULL: none */
};

struct queue {
    struct operation *ops;           /* [most], of which n wait */
    int n, most;
    struct graph graphs[GRAPHS];
    uint64_t seen[REMEMBERED];       /* hashes of lists that were launched one by one */
    uint64_t flushes;
    bool refused;                    /* this GPU makes no graphs */
};

/* ST_NOMEM (logged). */
status queue_open(struct cuda *c);
void queue_close(struct cuda *c);

/* An operation of more than QUEUED_TOKENS is launched at once. */
void queue_add(struct cuda *c, const struct operation *o);
/* The operation that was added last, if it waits; NULL: none does. The caller may change it. */
struct operation *queue_last(struct cuda *c);
void queue_flush(struct cuda *c);

#endif
