/* What the server has done, for /metrics and the page. The engine adds; others copy. */
#ifndef HEARTH_SERVE_COUNTS_H
#define HEARTH_SERVE_COUNTS_H

#include <pthread.h>
#include <stdint.h>

enum { COUNTS_BUCKETS = 22 };

/* Seconds (or tokens) by upper bound of bucket. */
struct histogram {
    const double *bounds; /* [n] ascending; what is above is in [n] */
    uint32_t n;
    uint64_t count[COUNTS_BUCKETS + 1];
    double sum;
};

struct counts {
    pthread_mutex_t lock;
    uint64_t prompt_tokens, cached_tokens, made_tokens; /* of prompts that have run, those that did not run for them,
                                                         * too */
    double prompt_s, decode_s;       /* in which a text was at its prompt; in which one was at its answer */
    uint64_t steps, busy;            /* steps; runs of all steps */
    uint64_t drafts, accepted, draft_rounds; /* tokens; steps of a text that had some */
    uint64_t ended[4];               /* by enum job_end */
    uint64_t refused;                /* queue full */
    uint32_t running, waiting;       /* jobs, now */
    uint32_t most_tokens;            /* of a text so far */
    struct histogram first_token_s, between_tokens_s, whole_s, queued_s, prompt_part_s, decode_part_s, prompt_length,
        made_length;
};

/* Zero, with the bounds that vLLM's dashboards know. Nothing needs to be freed. */
void counts_init(struct counts *c);
/* Another copy. */
void counts_copy(struct counts *c, struct counts *out);
void histogram_add(struct histogram *h, double value);

#endif
