/* Steps and requests as a coordinator and stages make them, of one run: tokens 5, 6, 7 of sequence 0, whose table gets
 * its first page. */
#ifndef HEARTH_TESTS_MADE_STEP_H
#define HEARTH_TESTS_MADE_STEP_H

#include "wire/runs.h"

enum { MADE_SEQUENCES = 3, MADE_PAGES = 5 };

/* What the steps point to: may be changed before they are encoded. */
struct made_step {
    struct wire_run run;
    struct wire_change change;
    int32_t tokens[3];
    struct wire_step step;
};

static inline struct wire_step *made_step(struct made_step *m, uint32_t position, enum wire_want want)
{
    *m = (struct made_step){.run = {.position = position, .n_tokens = 3, .want = want, .next_token = -1},
                            .change = {.page = 1, .from_page = WIRE_NO_PAGE},
                            .tokens = {5, 6, 7}};
    m->step = (struct wire_step){.id = 1, .n_runs = 1, .n_tokens = 3, .n_changes = 1, .runs = &m->run,
                                 .changes = &m->change, .tokens = m->tokens};
    return &m->step;
}

#endif
