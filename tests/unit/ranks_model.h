/* Ranks, as far as a schedule can see them, in virtual time: stages that run steps in order, each with its layers' KV
 * pages, and one sampler a slot at the last. A position of a page holds what depends on everything before it, so a run
 * that reads anything else than its own text's is found out. The tables are the ranks' own: of each only one, which is
 * changed as soon as a step is sent and again when a stage runs it, as the owners of several stages' heads have it.
 * Stages may have states of delta nets too, which hold what the last position holds. */
#ifndef HEARTH_TESTS_RANKS_MODEL_H
#define HEARTH_TESTS_RANKS_MODEL_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include "coordinator/schedule.h"

enum { MOST_STAGES = 4, MOST_PAGES = 48, MOST_CTX = 320, MOST_SLOTS = 12, MOST_BATCH = 96, MOST_CHANGES = 64,
       MOST_STEPS = 6 };

/* splitmix64 (Steele, Lea and Flood, 2014). */
static inline uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
    x = (x ^ x >> 27) * 0x94d049bb133111eb;
    return x ^ x >> 31;
}

/* What a position holds. */
static inline uint64_t held(uint64_t before, int32_t token, uint32_t position)
{
    return mix(before ^ mix((uint64_t)(uint32_t)token << 32 | position));
}

enum { VOCABULARY = 32 };

/* The token that follows a text, of which `last` is held at its end; and a token's score there. */
static inline int32_t drawn(uint64_t seed, uint64_t last) { return (int32_t)(mix(seed ^ last) % VOCABULARY); }
static inline uint64_t score(uint64_t last, int32_t successor) { return mix(last + (uint64_t)(uint32_t)successor); }

struct model_run {
    uint32_t slot, position, n_tokens, begin_with, keep_as;
    struct wish wish;
    bool begins;
    uint64_t seed;
    int32_t text[MOST_CTX];      /* up to the run's end; ranks know what is before it only if it begins */
    uint64_t expected[MOST_CTX]; /* what positions up to the run's end must hold */
    uint64_t values[MOST_CTX];   /* result: tokens or scores */
    uint32_t n_values;
};

struct model_step {
    struct model_run runs[MOST_SLOTS];
    struct change changes[MOST_CHANGES];
    uint32_t n_runs, n_changes, stage; /* the next that runs it */
    uint64_t done[MOST_STAGES];        /* when */
};

struct ranks {
    uint32_t n_stages;
    bool nets;                         /* there are states */
    uint64_t cost;                     /* of a token */
    uint64_t state[MOST_STAGES][2 * MOST_SLOTS + 1]; /* by number */
    uint64_t content[MOST_STAGES][MOST_PAGES][PAGE_POSITIONS];
    uint32_t table[MOST_SLOTS][MOST_CTX / PAGE_POSITIONS];
    uint64_t sampler[MOST_SLOTS][MOST_CTX]; /* its text, as what positions hold */
    uint64_t seed[MOST_SLOTS];
    uint64_t busy_until[MOST_STAGES];
    struct model_step steps[MOST_STEPS]; /* a ring */
    uint32_t oldest, n_under_way;
    uint64_t wrong;                    /* positions that were read and held something else */
};

static inline void ranks_reset(struct ranks *r, uint32_t n_stages, uint64_t cost)
{
    memset(r->content, 0, sizeof r->content);
    memset(r->table, 0xff, sizeof r->table);
    memset(r->sampler, 0, sizeof r->sampler);
    memset(r->busy_until, 0, sizeof r->busy_until);
    r->n_stages = n_stages;
    r->cost = cost;
    r->nets = false;
    memset(r->state, 0xff, sizeof r->state);
    r->oldest = r->n_under_way = 0;
    r->wrong = 0;
}

static inline void change_tables(struct ranks *r, const struct model_step *m)
{
    for (uint32_t i = 0; i < m->n_changes; i++)
        r->table[m->changes[i].slot][m->changes[i].index] = m->changes[i].page;
}

static inline void copy_run(struct model_run *to, const struct step_run *from, const struct step *step)
{
    const struct sequence *q = from->sequence;
    const uint32_t end = from->position + from->n_tokens;
    to->slot = from->slot;
    to->position = from->position;
    to->n_tokens = from->n_tokens;
    to->begin_with = from->begin_with;
    to->keep_as = from->keep_as;
    to->wish = from->wish;
    to->begins = from->begins;
    to->seed = q->sampling.seed;
    memcpy(to->text, q->tokens, from->position * sizeof *to->text);
    memcpy(to->text + from->position, step->tokens + from->first, from->n_tokens * sizeof *to->text);
    for (uint32_t i = 0; i < end; i++)
        to->expected[i] = held(i ? to->expected[i - 1] : 0, to->text[i], i);
}

/* STEP. */
static inline void ranks_send(struct ranks *r, const struct step *step, uint64_t now)
{
    struct model_step *m = &r->steps[(r->oldest + r->n_under_way++) % MOST_STEPS];
    m->n_runs = step->n_runs;
    m->n_changes = step->n_changes;
    m->stage = 0;
    memcpy(m->changes, step->changes, step->n_changes * sizeof *m->changes);
    for (uint32_t i = 0; i < step->n_runs; i++)
        copy_run(&m->runs[i], &step->runs[i], step);
    for (uint32_t i = 0; i < r->n_stages; i++) {
        now = (now > r->busy_until[i] ? now : r->busy_until[i]) + 10 + r->cost * step->n_tokens;
        m->done[i] = r->busy_until[i] = now;
    }
    change_tables(r, m);
}

static inline void run_in_stage(struct ranks *r, const struct model_run *m, uint32_t stage)
{
    for (uint32_t i = 0; i < m->position + m->n_tokens; i++) {
        const uint32_t page = r->table[m->slot][i / PAGE_POSITIONS];
        uint64_t *at = page < MOST_PAGES ? &r->content[stage][page][i % PAGE_POSITIONS] : NULL;
        if (at && i >= m->position)
            *at = m->expected[i];
        r->wrong += !at || *at != m->expected[i];
    }
}

/* A state is what the run's text needs; all begin before any runs, and are kept when all have run. */
static inline void run_states(struct ranks *r, const struct model_step *m)
{
    uint64_t *state = r->state[m->stage];
    for (uint32_t i = 0; i < m->n_runs && r->nets; i++) {
        const struct model_run *run = &m->runs[i];
        uint64_t *own = &state[run->slot + 1];
        *own = run->begin_with ? state[run->begin_with] : run->position ? *own : 0;
        r->wrong += *own != (run->position ? run->expected[run->position - 1] : 0);
    }
    for (uint32_t i = 0; i < m->n_runs && r->nets; i++) {
        const struct model_run *run = &m->runs[i];
        state[run->slot + 1] = run->expected[run->position + run->n_tokens - 1];
    }
    for (uint32_t i = 0; i < m->n_runs && r->nets; i++)
        if (m->runs[i].keep_as)
            state[m->runs[i].keep_as] = state[m->runs[i].slot + 1];
}

/* The last stage draws and scores with what its samplers know. */
static inline void finish_run(struct ranks *r, struct model_run *m)
{
    uint64_t *text = r->sampler[m->slot];
    m->n_values = 0;
    if (m->begins) {
        r->seed[m->slot] = m->seed;
        for (uint32_t i = 0; i < m->position; i++)
            text[i] = held(i ? text[i - 1] : 0, m->text[i], i);
    }
    for (uint32_t t = 0; t < m->n_tokens; t++) {
        const uint32_t i = m->position + t;
        const bool end = t + 1 == m->n_tokens;
        text[i] = held(i ? text[i - 1] : 0, m->text[i], i);
        if (wants_each(&m->wish) && t >= m->wish.from) /* of a sum, its terms */
            m->values[m->n_values++] = score(text[i], end ? m->wish.successor : m->text[i + 1]);
        else if (m->wish.kind == WISH_TOKENS ? t >= m->wish.from : m->wish.kind >= WISH_TOKEN && end)
            m->values[m->n_values++] = (uint64_t)drawn(r->seed[m->slot], text[i]);
    }
}

static inline void run_stage(struct ranks *r, struct model_step *m)
{
    change_tables(r, m);
    for (uint32_t i = 0; i < m->n_changes; i++)
        if (m->changes[i].from != PAGE_NONE)
            memcpy(r->content[m->stage][m->changes[i].page], r->content[m->stage][m->changes[i].from],
                   sizeof r->content[0][0]);
    for (uint32_t i = 0; i < m->n_runs; i++)
        run_in_stage(r, &m->runs[i], m->stage);
    run_states(r, m);
    if (++m->stage == r->n_stages)
        for (uint32_t i = 0; i < m->n_runs; i++)
            finish_run(r, &m->runs[i]);
}

/* The stage that is done next; NULL: nothing is under way. */
static inline struct model_step *ranks_next(struct ranks *r, uint64_t *when)
{
    struct model_step *next = NULL;
    *when = UINT64_MAX;
    for (uint32_t i = 0; i < r->n_under_way; i++) {
        struct model_step *m = &r->steps[(r->oldest + i) % MOST_STEPS];
        if (m->done[m->stage] < *when) {
            *when = m->done[m->stage];
            next = m;
        }
    }
    return next;
}

/* Runs what ranks_next says. NULL, or the oldest step, whose result has come: it is valid until the next ranks_send. */
static inline const struct model_step *ranks_run(struct ranks *r, struct model_step *m)
{
    run_stage(r, m);
    if (m->stage < r->n_stages)
        return NULL;
    r->oldest = (r->oldest + 1) % MOST_STEPS;
    r->n_under_way--;
    return m;
}

#endif
