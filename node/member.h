/* One rank of this process: what it opens, makes and has, from its start until it is released. It belongs to the thread
 * that the rank is. */
#ifndef HEARTH_NODE_MEMBER_H
#define HEARTH_NODE_MEMBER_H

#include <pthread.h>
#include "base/log.h"
#include "node/cluster.h"
#include "node/gpus.h"
#include "node/planning.h"
#include "worker/worker.h"

/* Zeroed but for `o` and `transport`, which is the member's from then on. */
struct member {
    const struct cluster_options *o;
    struct transport *transport;
    struct model *model;
    struct neurons *neurons;
    char *cache;              /* folder; NULL: none */
    struct chunks *chunks;    /* of the model's file; NULL: not compared, or no more */
    struct plan *plan;
    struct plan_reasons reasons;
    struct gpus gpus;
    struct wire_gpus offers[PLAN_MAX_RANKS]; /* of all ranks, once they have told each other; its own before */
    bool linked;              /* some ranks' GPUs are joined (node/links.h) */
    const struct device_ops *devices[2]; /* kinds: the CPU, and that of the GPUs */
    const struct kernels *kernels;
    struct token_trie *trie;  /* at the last stage, where there are grammars; or NULL */
    struct worker_options worker_options;
    uint64_t page_bytes;      /* of a page of KV memory, on all ranks together */
    struct worker *worker;
    struct wire_hello hello;
    status joined;            /* what rank 0 answered to that */
    struct log_catcher errors; /* ranks > 0 are silent: rank 0 says what went wrong, once */
    pthread_t thread;
};

/* What every rank computes with, GPUs apart. */
extern const struct device_ops *const member_devices[1];

/* There are two roll calls, each of which every rank comes to, whatever it finds: at the first all learn that they are
 * of one release and have one model, so that they understand each other; then they tell each other of their GPUs
 * (node/offers.h), and with those all make the same plan; at the second they agree in it and know what it needs. */
/* Everything up to the first: opens the files, makes the plan without what GPUs get, looks for them. Errors of
 * cluster_start. */
status member_prepare(struct member *m);
/* Everything from the exchange to the second: gives GPUs their part of the plan, computes the memory. Errors of
 * cluster_start. */
status member_settle(struct member *m);
/* Fills in the rest of m->hello: whether all went well so far, and if not, why, where its lines are caught. */
void member_say_hello(struct member *m, status prepared);
/* All is loaded and compared: from here on no file is read. ST_IO, ST_NOMEM (logged). */
status member_let_go(struct member *m);
/* A rank other than 0, from start to STOP; it is released then. Its lines are caught and go to rank 0. */
status member_serve(struct member *m);
/* Closes and frees all but the catcher. */
void member_release(struct member *m);

#endif
