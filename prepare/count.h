/* What `hearth prepare` sees of the model at work: how often each expert is chosen, how often each neuron fires, how
 * strongly, and a sample of what the layers read. */
#ifndef HEARTH_PREPARE_COUNT_H
#define HEARTH_PREPARE_COUNT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include "base/activation.h"
#include "base/status.h"
#include "device/device.h"
#include "prepare/part.h"

/* Of this process's layers. Different layers may be counted at once, by the ranks that have them. */
struct counter {
    struct part *part;         /* borrowed; its state is what is counted into */
    enum activation activation;
    uint64_t window_tokens;    /* that the model runs of a window */
    uint64_t stride;           /* every so many tokens one is kept as a sample */
    uint64_t counted;          /* windows that the checkpoint held at the start: seen again, they do not count */
    bool saves;                /* saves the checkpoint by itself after a window: no other thread knows when one ends */
    uint64_t *seen;            /* [layers] tokens, from the text's beginning */
    _Atomic int failed;        /* the first status that was not ST_OK */
};

/* Starts counting at a window of the text. ST_NOMEM. */
status counter_start(struct counter *c, struct part *part, enum activation activation, uint64_t window_tokens,
                     uint64_t stride, uint64_t first_window);
void counter_stop(struct counter *c);
/* cluster_options.observe; `arg` is the counter. */
void counter_observe(void *arg, const struct observed *seen);

#endif
