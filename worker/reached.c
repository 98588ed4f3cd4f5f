#include "worker/reached.h"

#include "base/log.h"

void reached_lay(struct reached *r, const struct wire_limits *lim, struct arena *a)
{
    *r = (struct reached){.n_states = lim->n_states};
    r->position = arena_alloc(a, ((size_t)lim->n_states + 1) * sizeof *r->position);
}

/* Copies before the step, in the order of runs. */
static status begin(struct reached *r, const struct wire_run *run)
{
    uint32_t *own = &r->position[run->sequence + 1];
    if (run->begin_with)
        *own = r->position[run->begin_with];
    else if (run->position == 0)
        *own = 0;
    if (*own == run->position)
        return ST_OK;
    log_error("a run of sequence %u from position %u, but its state is at %u", run->sequence, run->position, *own);
    return ST_FORMAT;
}

status reached_run(struct reached *r, uint64_t step, const struct wire_run *runs, uint32_t n)
{
    status st = ST_OK;
    if (step <= r->step || !r->n_states)
        return ST_OK;
    for (uint32_t i = 0; i < n && !st; i++)
        st = begin(r, &runs[i]);
    for (uint32_t i = 0; i < n && !st; i++) {
        r->position[runs[i].sequence + 1] += runs[i].n_tokens;
        if (runs[i].keep_as)
            r->position[runs[i].keep_as] = r->position[runs[i].sequence + 1];
    }
    r->step = st ? r->step : step;
    return st;
}
