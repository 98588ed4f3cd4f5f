/* What of sessions waits. */
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include "base/log.h"
#include "coordinator/sessions.h"

status sessions_wait(struct sessions *s, struct session_event *e)
{
    enum { POLLS_BEFORE_YIELD = 64 };
    bool found = false;
    for (unsigned idle = 0;; idle++) {
        const status st = sessions_poll(s, e, &found);
        if (st || found)
            return st;
        const struct schedule_counts c = sessions_schedule(s);
        if (c.running + c.waiting == 0) {
            log_error("no turn is under way to wait for");
            return ST_USAGE;
        }
        if (idle > POLLS_BEFORE_YIELD)
            sched_yield();
    }
}

status sessions_await(struct sessions *s, struct sequence *q, struct session_event *e, sessions_progress *progress,
                      void *arg)
{
    const uint64_t total = q->n_tokens;
    for (;;) {
        status st = sessions_wait(s, e);
        if (st)
            return st;
        if (e->sequence != q)
            continue;
        if (e->st)
            return e->st;
        if (progress && total > 1)
            progress(arg, "prompt", e->n_run, total);
        if (e->kind != WISH_NOTHING || e->over)
            return ST_OK;
    }
}

/* Windows that are being scored: the one of sequence i lies at nll + i * n_scores. */
struct scoring {
    struct sessions *s;
    const int32_t *tokens; /* [n, size] */
    size_t n, next;        /* next: to be submitted */
    uint32_t size, from, n_scores, n_at_once;
    struct sequence *sequences[SCHEDULE_SEQUENCES];
    uint32_t got[SCHEDULE_SEQUENCES]; /* scores */
    float *nll;            /* [n_at_once, n_scores] */
};

/* The last token is only a successor: it need not run. */
static status submit_window(struct scoring *g)
{
    const uint32_t i = (uint32_t)(g->next % g->n_at_once);
    const int32_t *window = g->tokens + g->next * g->size;
    const struct wish w = {.kind = WISH_SCORES, .from = g->from, .successor = window[g->size - 1]};
    g->got[i] = 0;
    sessions_cut(g->s, g->sequences[i], 0);
    status st = sessions_text(g->s, g->sequences[i], window, g->size - 1);
    if (!st)
        st = sessions_submit(g->s, g->sequences[i], &w, NULL);
    g->next += !st;
    return st;
}

/* Until window w is done. */
static status await_window(struct scoring *g, size_t w)
{
    const uint32_t mine = (uint32_t)(w % g->n_at_once);
    while (g->got[mine] < g->n_scores) {
        struct session_event e;
        status st = sessions_wait(g->s, &e);
        if (!st)
            st = e.st;
        if (st)
            return st;
        uint32_t i = 0;
        while (i < g->n_at_once && g->sequences[i] != e.sequence)
            i++;
        if (i == g->n_at_once || e.kind != WISH_SCORES)
            continue;
        memcpy(g->nll + (size_t)i * g->n_scores + g->got[i], e.answer.values, e.answer.n_values * sizeof *g->nll);
        g->got[i] += e.answer.n_values;
    }
    return ST_OK;
}

static status score_windows(struct scoring *g, sessions_scored *each, void *arg)
{
    status st = ST_OK;
    for (uint32_t i = 0; i < g->n_at_once && !st; i++)
        st = sessions_open(g->s, &g->sequences[i]);
    while (!st && g->next < g->n_at_once)
        st = submit_window(g);
    for (size_t w = 0; w < g->n && !st; w++) {
        st = await_window(g, w);
        if (!st)
            st = each(arg, w, g->nll + w % g->n_at_once * g->n_scores);
        if (!st && g->next < g->n)
            st = submit_window(g);
    }
    for (uint32_t i = 0; i < g->n_at_once && g->sequences[i]; i++)
        sessions_close(g->s, g->sequences[i]);
    return st;
}

status sessions_score(struct sessions *s, const int32_t *tokens, size_t n, uint32_t size, uint32_t from,
                      sessions_scored *each, void *arg)
{
    if (size < 2 || from >= size - 1) {
        log_error("windows of %u tokens, scores from %u on: nothing to score", size, from);
        return ST_USAGE;
    }
    const uint32_t slots = sessions_slots(s);
    struct scoring g = {.s = s, .tokens = tokens, .n = n, .size = size, .from = from, .n_scores = size - 1 - from,
                        .n_at_once = n < slots ? (uint32_t)n : slots};
    g.nll = malloc((size_t)g.n_at_once * g.n_scores * sizeof *g.nll + 1);
    if (!g.nll) {
        log_error("no memory for %u scores", g.n_scores);
        return ST_NOMEM;
    }
    const status st = score_windows(&g, each, arg);
    free(g.nll);
    return st;
}
