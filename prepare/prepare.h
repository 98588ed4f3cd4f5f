/* Measuring a model's neurons on a text and fitting what the sparse modes need. The model runs several times: to find
 * out its activation, to count its neurons, and in every mode to measure what the mode costs. */
#ifndef HEARTH_PREPARE_PREPARE_H
#define HEARTH_PREPARE_PREPARE_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/status.h"
#include "node/cluster.h"
#include "node/launch.h"

enum { PREPARE_LEAST_TOKENS = 2048, PREPARE_LEAST_SAMPLES = 512 };

struct report;

struct prepare_options {
    struct cluster_options cluster; /* no plan, split or split file, dense; n_ctx: the tokens of a window */
    const char *text;          /* [n_text], rank 0 alone */
    size_t n_text;
    const char *text_name;     /* for people */
    const char *report;        /* NULL: beside the neuron file */
    float miss, recall, accuracy, loss_percent, mlp_percent; /* loss: 0 unless asked for */
    int64_t most_windows, most_samples, epochs; /* 0: all, as many as usual */
    bool curve;                /* measure every share that `threshold` can skip */
    volatile sig_atomic_t *stop; /* set: ends after the window or layer at hand, and the same call goes on from there */
    /* Called on rank 0 while `what` goes on, with a remark. */
    void (*note)(void *arg, const char *what, uint64_t done, uint64_t total, const char *remark);
    void *note_arg;
    /* Called on rank 0 with what was found (prepare/report.h), once it is written. What it returns is returned. */
    status (*tell)(const struct report *r);
};

/* Writes the neuron file and a report of what was found. Under mpirun every process calls it with the same options:
 * rank 0 leads, the others follow (prepare/link.h). ST_CANCELLED if it was stopped; ST_USAGE, ST_IO, ST_FORMAT,
 * ST_UNSUPPORTED, ST_MISMATCH (a checkpoint of other options), ST_BUDGET, ST_NOMEM, ST_PEER, ST_INTERNAL; all logged.
 * One thread. */
status prepare(const struct prepare_options *o, const struct launch *launch);

#endif
