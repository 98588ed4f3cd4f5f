/* How the processes of a `hearth prepare` under mpirun talk to each other between the runs of the model, while there is
 * no session: blobs of any size, and what they mean. Without mpirun there is one process and no link. */
#ifndef HEARTH_PREPARE_LINK_H
#define HEARTH_PREPARE_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/status.h"
#include "prepare/part.h"

/* What a blob is. Those of rank 0 are tasks, in the order in which they come. */
enum link_what {
    TASK_OPEN,   /* struct task_open: open the checkpoint; answered by ANSWER_OPEN */
    TASK_RUN,    /* struct task_run: start the cluster with this process as a rank; no answer */
    TASK_FIRED,  /* answered by ANSWER_FIRED */
    TASK_FIT,    /* struct task_fit: fit the own layers; answered by ANSWER_LAYERs, ANSWER_PROGRESSes among them, and
                  * ANSWER_DONE */
    TASK_FILE,   /* u64 hash: have you this neuron file? ANSWER_FILE; if not, FILE_BYTES follows; then ANSWER_DONE */
    FILE_BYTES,
    TASK_END,    /* u64: delete the checkpoint (1) or keep it (0); no answer */
    ANSWER_OPEN, /* u64: windows that the checkpoint holds */
    ANSWER_FIRED, /* u32 [layers of the rank, d_ff]; index: its first layer */
    ANSWER_LAYER, /* an encoded layer; index: which */
    ANSWER_PROGRESS, /* f32: of the rank's layers, how many are done */
    ANSWER_FILE, /* u64: 1, it is there */
    ANSWER_DONE,
    ANSWER_FAILED, /* text: why the rank cannot go on; stands for any other answer */
    LINK_WHATS
};

/* All ranks run the same program on machines of one byte order, so these travel as they are. */
struct task_open {
    struct part_setting settings[PART_SETTINGS];
    uint64_t n_windows, window_tokens, n_samples, stride;
};
struct task_run {
    int32_t activation;         /* -1: what the neuron file says */
    int32_t sparse, predictor;
    float skip;
    uint64_t observe;           /* count; from this window on: */
    uint64_t first_window;
};
struct task_fit {
    uint64_t activation;        /* enum activation: a checkpoint may have spared the run that told it */
    uint64_t mlp_bytes[];       /* [n_layers] most bytes of each layer's MLP */
};

struct link;

/* What arrived. */
struct blob {
    int from;
    enum link_what what;
    uint32_t index;
    uint8_t *bytes; /* malloc'ed, the receiver's; never NULL */
    size_t n;
};

/* Every process calls it as often as every other. end_job: of struct transport_config. ST_INTERNAL, ST_NOMEM;
 * logged. */
status link_open(void (*end_job)(void), struct link **out);
/* Waits until every process has come to it. NULL is fine. */
void link_close(struct link *l);
/* Ends it for every process, with `why` said there, when this one no longer understands what it is told. */
void link_abandon(struct link *l, const char *why);
int link_rank(const struct link *l);
int link_ranks(const struct link *l);

/* Returns when the blob is on its way. ST_PEER. */
status link_send(struct link *l, int to, enum link_what what, uint32_t index, const void *bytes, size_t n);
/* The same to every rank but this one; l NULL: there is none. */
status link_send_all(struct link *l, enum link_what what, const void *bytes, size_t n);
/* Waits for a whole blob from anyone. An ANSWER_FAILED is logged as "rank N: why" and is ST_PEER. ST_FORMAT. */
status link_receive(struct link *l, struct blob *b);
/* The same, but it must be this, of n bytes (SIZE_MAX: of any number). */
status link_receive_only(struct link *l, enum link_what what, size_t n, struct blob *b);
/* Whether a message waits to be received. */
bool link_waiting(struct link *l);

#endif
