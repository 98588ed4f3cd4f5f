/* A step of the schedule as a message, and a message as what came of a step. One thread. */
#ifndef HEARTH_COORDINATOR_MESSAGES_H
#define HEARTH_COORDINATOR_MESSAGES_H

#include "coordinator/schedule.h"
#include "wire/runs.h"

struct messages;

/* What came back of one run. */
struct session_answer {
    uint32_t n_tokens, n_tops, n_values;
    const int32_t *tokens;       /* [n_tokens] drawn */
    const struct wire_top *tops; /* [n_tops] best first; WISH_LOG_PROBS: place by place */
    const float *values;         /* [n_values] scores, log probabilities, logits, or the final state */
};

/* What a schedule must be for messages of these limits; n_groups and n_steps are as given. */
struct schedule_options messages_schedule(const struct wire_limits *lim, uint32_t n_groups, uint32_t n_steps);

/* ST_NOMEM (logged). */
status messages_create(const struct wire_limits *lim, struct messages **out);
void messages_free(struct messages *m); /* NULL is fine */

/* ST_USAGE (logged) if ranks would refuse a step of such a turn, and fail; `p` may be NULL. */
status messages_check(const struct messages *m, const struct wish *w, const struct sampler_params *p);
/* The same of a token. */
bool messages_has_token(const struct messages *m, int32_t token);

/* STEP of at most wire_step_max bytes; its size. */
size_t messages_encode(struct messages *m, const struct step *step, uint8_t *out, size_t cap);
/* RESULT of `step`: an answer for each of its runs, which lies in the message and in `m` until the next one is decoded,
 * and its counts. ST_FORMAT (logged) unless it is the step's, and answers all that was wanted. */
status messages_decode(struct messages *m, uint8_t *in, size_t n, const struct step *step,
                       struct session_answer *answers /* [n_runs] */, struct wire_counts *counts);

#endif
