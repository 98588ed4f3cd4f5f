/* This process's part of the cluster: the ranks it runs and, on rank 0, the session that commands talk to.
 *
 * Under mpirun every process calls cluster_start with the same options; without it the process is the whole cluster,
 * with `ranks` ranks in threads of its own. Not thread-safe: one thread owns a cluster. */
#ifndef HEARTH_NODE_CLUSTER_H
#define HEARTH_NODE_CLUSTER_H

#include <stdbool.h>
#include <stdint.h>
#include "base/status.h"
#include "sparsity/mode.h"
#include "transport/network.h"

struct model;
struct number_list;
struct dialogue;
struct observed;
struct plan;
struct session;
struct tokenizer;

/* What ranks compute with. */
enum devices_wanted {
    DEVICES_PLANNED,      /* what a plan names, else CPUs */
    DEVICES_AUTO,         /* GPUs too, where there are some */
    DEVICES_CPU, DEVICES_CUDA
};

struct cluster_options {
    const char *model;    /* path of the GGUF file, the same model on every rank */
    const char *plan;     /* path of a plan, NULL: made from split and shares */
    const char *probe;    /* path of what `hearth probe` measured, to choose split and shares by; NULL: none */
    int split;            /* enum plan_split, or -1: unset */
    bool down_at_stage;   /* the down projections lie on their layers' stages */
    int residual;         /* 1: on all ranks, 0: on its home, -1: on all where the plan can be so */
    const char *shares;   /* "3,1,...": a positive weight for each rank, NULL: equal ones */
    bool mpi;             /* ranks are processes, started by mpirun, which MPI connects */
    int ranks;            /* else: ranks in this process, 1 unless --ranks */
    struct network_options network; /* between processes */
    int threads;          /* per rank, 0: all that this rank may use */
    struct number_list *thread_list; /* the command line's own, where -t may be several; NULL: it goes to `threads` */
    bool elsewhere;       /* the command line names a server instead of a model, which may be missing then */
    uint32_t n_ctx;       /* tokens of a sequence, 0: what the model was trained for, at most 4096 */
    uint32_t n_batch;     /* tokens that run together */
    bool grammars;        /* texts may have a grammar (sampling/grammar.h): memory for one of each sequence */
    uint32_t n_sequences; /* at once, WIRE_SEQUENCES at most; 0: 1 */
    uint64_t kv_budget;   /* bytes of KV memory that each rank may use; 0: enough for kv_sequences to be full */
    uint32_t kv_sequences; /* n_sequences at most; 0: all of them */
    const char *kernels;  /* "scalar", "avx2", "avx512", NULL: the fastest that this machine has */
    const char *activation; /* "silu", "relu", ...; NULL: what the neuron file or the model says */
    enum sparse_mode sparse;
    enum predictor predictor; /* for SPARSE_PREDICTED */
    float skip;           /* for SPARSE_THRESHOLD, share of neurons; 0: the neuron file's */
    const char *neurons;  /* path of the neuron file, "" for none; NULL: the one beside the model, if there is one */
    bool sums_f16;        /* partial sums travel as f16: lossy */
    uint64_t ram_budget;  /* bytes that each rank may use, 0: no limit */
    enum devices_wanted device;
    int gpu_layers;       /* that each rank's GPU gets, the output matrix being one more; -1: as many as fit */
    const char *gpu_index; /* path of PowerInfer's split file: which neurons GPUs get; NULL: as gpu_layers says */
    uint64_t vram_budget; /* bytes of a GPU that each rank may use, 0: what is free */
    const char *plugin_dir; /* folder of the plug-in for GPUs, NULL: the program's or ../lib/hearth beside it */
    bool no_verify;       /* the ranks' copies of the model are not compared chunk by chunk */
    bool quiet;           /* nothing on stderr but warnings and errors */
    void (*end_job)(void); /* of struct transport_config; NULL where the ranks are threads */
    /* Called on rank 0's thread while `what` goes on; may be NULL. */
    void (*progress)(void *arg, const char *what, uint64_t done, uint64_t total);
    void *progress_arg;
    /* Called on each rank of this process, by the rank's own thread (worker/worker.h); may be NULL. */
    void (*observe)(void *arg, const struct observed *o);
    void *observe_arg;
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
const char *cluster_transport(const struct cluster *c); /* "mpi", "verbs + nccl": how its ranks talk */
const char *cluster_devices(const struct cluster *c); /* "cuda:0 (NVIDIA H100 PCIe) + cpu": what rank 0 computes with */
const struct plan *cluster_plan(const struct cluster *c);
const char *cluster_device(const struct cluster *c, int rank, int i); /* "cuda:0"; 0 is the CPU; NULL: it has no i-th */
const char *cluster_host(const struct cluster *c, int rank); /* the name of the machine that it runs on */
uint32_t cluster_context(const struct cluster *c); /* tokens of a sequence */
/* Owned by the cluster: coordinator/session.h, and a dialogue of its own, which takes nothing while it is empty. */
struct session *cluster_session(struct cluster *c);
struct dialogue *cluster_dialogue(struct cluster *c);
uint64_t cluster_page_bytes(const struct cluster *c); /* of a page of KV memory, on all ranks together */

#endif
