/* This process's part of the cluster: the ranks it runs and, on rank 0, the session that commands talk to.
 *
 * Under mpirun every process calls cluster_start with the same options; without it the process is the whole cluster,
 * with `ranks` ranks in threads of its own. Not thread-safe: one thread owns a cluster. */
#ifndef HEARTH_CLI_CLUSTER_H
#define HEARTH_CLI_CLUSTER_H

#include <stdbool.h>
#include <stdint.h>
#include "base/status.h"

struct model;
struct session;
struct tokenizer;

struct cluster_options {
    const char *model;    /* path of the GGUF file, the same model on every rank */
    const char *plan;     /* path of a plan, NULL: made from split and shares */
    int split;            /* enum plan_split, or -1: unset */
    const char *shares;   /* "3,1,...": a positive weight for each rank, NULL: equal ones */
    int ranks;            /* in-process ranks, 1 unless --ranks; ignored under mpirun */
    int threads;          /* per rank, 0: all that this rank may use */
    uint32_t n_ctx;       /* tokens of context, 0: what the model was trained for, at most 4096 */
    uint32_t n_batch;     /* tokens of a prompt that run together */
    const char *kernels;  /* "scalar", "avx2", "avx512", NULL: the fastest that this machine has */
    uint64_t ram_budget;  /* bytes that each rank may use, 0: no limit */
    bool quiet;           /* nothing on stderr but warnings and errors */
    /* Called on rank 0's thread while `what` goes on; may be NULL. */
    void (*progress)(void *arg, const char *what, uint64_t done, uint64_t total);
    void *progress_arg;
};

struct cluster;

/* Starts the cluster on every rank: loads what the plan gives this process and waits until all ranks are ready. On
 * ranks > 0 it serves, returns only after the coordinator's STOP, and sets *out = NULL. Errors (ST_USAGE, ST_IO,
 * ST_FORMAT, ST_UNSUPPORTED, ST_MISMATCH, ST_BUDGET, ST_NOMEM, ST_PEER, ST_INTERNAL) are logged. */
status cluster_start(const struct cluster_options *o, struct cluster **out);
/* Stops every rank and frees everything; NULL is fine. */
void cluster_stop(struct cluster *c);

const struct model *cluster_model(const struct cluster *c);
struct tokenizer const *cluster_tokenizer(const struct cluster *c);
int cluster_ranks(const struct cluster *c);
uint32_t cluster_context(const struct cluster *c); /* tokens */
struct session *cluster_session(struct cluster *c); /* coordinator/session.h; owned by the cluster */
/* Weight bytes that one decoded token reads, all ranks together. */
uint64_t cluster_bytes_per_token(const struct cluster *c);

#endif
