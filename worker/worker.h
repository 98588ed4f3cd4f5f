/* What every rank does: it runs the layers of its stage on its devices, and answers messages.
 *
 * A worker belongs to one thread (its pool's threads work for it). Whoever waits inside it for a message serves the FFN
 * requests that arrive meanwhile, so ranks cannot deadlock on each other. */
#ifndef HEARTH_WORKER_WORKER_H
#define HEARTH_WORKER_WORKER_H

#include <stdbool.h>
#include <stdint.h>
#include "base/status.h"
#include "device/device.h"
#include "placement/plan.h"
#include "transport/transport.h"
#include "wire/wire.h"

struct worker;

struct worker_options {
    const struct model *model;     /* these are borrowed and outlive the worker */
    const struct plan *plan;       /* checked against the model */
    struct transport *transport;   /* its rank is the worker's */
    const struct device_ops *const *devices; /* kinds that this rank has */
    int n_devices;
    uint64_t vram_budget;          /* bytes that a GPU may take, 0: what is free */
    const struct kernels *kernels; /* the CPU's */
    int n_threads;
    uint32_t n_ctx, n_batch;       /* tokens of a sequence, tokens of a step, at most */
    uint32_t n_sequences, n_pages; /* at once, WIRE_SEQUENCES at most; pages of the KV cache */
    enum sparse_mode sparse;       /* checked (sparse_mode_check) */
    enum predictor predictor;      /* not PREDICTOR_AUTO, where sparse is SPARSE_PREDICTED */
    bool sums_f16;                 /* partial sums travel as f16 where they fit: lossy */
    float skip_share;              /* of neurons that `threshold` skips; 0: what the neuron file says */
    const struct neurons *neurons; /* NULL: none; borrowed */
    uint32_t n_grammar_ops;        /* of grammars that begin in a step, together; 0: no text has one */
    const struct token_trie *trie; /* of the model's vocabulary, where the last stage has grammars; borrowed */
    struct chunks *chunks;         /* NULL, or told while loading what of the model's file is loaded; borrowed until
                                    * then */
    /* NULL, or called in a dense run after every FFN part that this rank computes, by its own thread (device.h). */
    void (*observe)(void *arg, const struct observed *o);
    void *observe_arg;
    /* Called now and then while loading; NULL: silent. done and total in bytes. */
    void (*progress)(void *arg, const char *what, uint64_t done, uint64_t total);
    void *progress_arg;
};

/* Bytes that a holder will take, known before anything is loaded. */
struct worker_memory {
    uint64_t weights;  /* repacked matrices, norms and biases */
    uint64_t kv;       /* its pages of the KV cache */
    uint64_t states;   /* of delta nets */
    uint64_t buffers;  /* activations, scores; on a rank's first CPU logits and messages too */
    uint64_t total;    /* alignment included */
};

/* Computes what a holder needs; o->transport is not used. Where the rank does not have the device: as its CPU would.
 * Thread-safe. ST_NOMEM; ST_UNSUPPORTED for a model that the file may hold but no worker runs, or such a plan. */
status worker_memory(const struct worker_options *o, int holder, struct worker_memory *out);
/* Whether a rank has the devices that the plan gives it. ST_UNSUPPORTED (logged) if not; ST_NOMEM. */
status worker_check_devices(const struct worker_options *o, int rank);
/* The limits of messages that follow from model and options. */
struct wire_limits worker_limits(const struct worker_options *o);
/* Allocates everything and repacks this rank's weights, on all its threads. From then on the worker reads no byte of
 * the model's file and the neuron file. ST_NOMEM, ST_UNSUPPORTED as above. */
status worker_create(const struct worker_options *o, struct worker **out);
/* Its threads, for work between its own. */
struct pool *worker_pool(const struct worker *w);
void worker_free(struct worker *w); /* NULL is fine */

/* Handles one message if there is one (*handled); returns at once otherwise. *stopped: STOP came. ST_PEER if another
 * rank failed (logged, naming it). Any other failure is this rank's own; worker_fail tells the others. */
status worker_poll(struct worker *w, bool *handled, bool *stopped);
/* Polls until STOP. Errors as worker_poll. */
status worker_run(struct worker *w);

/* Waits until everything is gone that others still need of this rank, after the last step: where all ranks have the
 * residual stream, one may be done while another waits for its part. STOP does so by itself; rank 0 gets none. */
status worker_settle(struct worker *w);

/* Tells every other rank why this one cannot go on (deliver_last), who then says "rank N: reason": it need not name
 * this rank. Needs no worker: it may be loading that failed. */
void worker_fail(struct transport *t, const char *reason);

/* Start-up, on every rank but 0: sends HELLO, waits for WELCOME. ST_MISMATCH if rank 0 refused (it logs why, not we),
 * ST_PEER if it died; ST_FORMAT (logged): the answer is broken, or another release's, which the others do not know. */
status worker_join(struct transport *t, const struct wire_hello *hello);
/* Tells rank 0 the hashes of the chunks that this rank has loaded from; before worker_ready. */
status worker_tell_chunks(struct transport *t, struct chunks *chunks);
/* Tells rank 0 that this rank has loaded its weights, and what memory the process holds. */
status worker_ready(struct transport *t, uint64_t held_bytes);

#endif
