#include <stdlib.h>
#include "base/log.h"
#include "coordinator/schedule_parts.h"

uint32_t schedule_most_changes(const struct schedule_options *o)
{
    /* A run of n tokens begins n / 64 + 1 pages at most, and may have a copy made of the one before them; one run of a
     * step begins with another's. */
    return pages_of(o->n_ctx) + o->n_batch / PAGE_POSITIONS + 2 * o->n_sequences;
}

static status check_options(const struct schedule_options *o)
{
    if (o->n_sequences >= 1 && o->n_sequences <= SCHEDULE_SEQUENCES && o->n_pages >= 1 && o->n_ctx >= 1 &&
        o->n_batch >= 1 && o->n_groups >= 1 && o->n_steps >= o->n_groups &&
        (o->n_states == 0 || o->n_states >= o->n_sequences))
        return ST_OK;
    log_error("a schedule of %u sequences (1 to %d), %u pages, contexts of %u, steps of %u, %u groups and %u steps "
              "under way: each must be at least 1, and the last no less than the one before", o->n_sequences,
              SCHEDULE_SEQUENCES, o->n_pages, o->n_ctx, o->n_batch, o->n_groups, o->n_steps);
    return ST_USAGE;
}

static bool make_step(const struct schedule_options *o, struct step *step)
{
    step->runs = calloc(o->n_sequences, sizeof *step->runs);
    step->tokens = calloc(o->n_batch, sizeof *step->tokens);
    step->changes = calloc(schedule_most_changes(o), sizeof *step->changes);
    return step->runs && step->tokens && step->changes;
}

status schedule_create(const struct schedule_options *o, struct schedule **out)
{
    status st = check_options(o);
    if (st)
        return st;
    struct schedule *s = calloc(1, sizeof *s);
    bool made = s;
    if (s) {
        s->o = *o;
        s->steps = calloc(o->n_steps, sizeof *s->steps);
        made = s->steps;
    }
    for (uint32_t i = 0; made && i < o->n_steps; i++)
        made = make_step(o, &s->steps[i]);
    if (!made)
        log_error("no memory for a schedule");
    if (!made || pages_create(o->n_pages, &s->pages) ||
        (o->n_states && states_create(o->n_sequences, o->n_states - o->n_sequences, &s->states))) {
        schedule_free(s);
        return ST_NOMEM;
    }
    *out = s;
    return ST_OK;
}

void schedule_free(struct schedule *s)
{
    for (uint32_t i = 0; s && i < s->o.n_sequences; i++)
        sequence_free(s->slots[i]); /* released, with steps under way that never came */
    for (uint32_t i = 0; s && s->steps && i < s->o.n_steps; i++) {
        free(s->steps[i].runs);
        free(s->steps[i].tokens);
        free(s->steps[i].changes);
    }
    if (s) {
        pages_free(s->pages);
        states_free(s->states);
        free(s->steps);
    }
    free(s);
}

status schedule_open(struct schedule *s, struct sequence **out) { return sequence_create(s->o.n_ctx, s->states, out); }
