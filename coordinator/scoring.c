#include "coordinator/scoring.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/log.h"

static double mean(const struct score *s) { return s->sum / (double)s->scored; }

double score_perplexity(const struct score *s) { return exp(mean(s)); }

double score_uncertainty(const struct score *s)
{
    double m = mean(s), variance = s->squares / (double)s->scored - m * m;
    return s->scored > 1 ? exp(m) * sqrt(fmax(0, variance) / (double)(s->scored - 1)) : 0;
}

void score_add(struct score *s, const struct score *more)
{
    s->windows += more->windows;
    s->scored += more->scored;
    s->sum += more->sum;
    s->squares += more->squares;
}

status windows_cut(const struct tokenizer *t, const char *text, size_t n_bytes, size_t size, size_t least, size_t most,
                   struct windows *out)
{
    struct windows w = {.size = size};
    status st = tokenizer_encode(t, text, n_bytes, true, false, &w.tokens, &w.n_tokens);
    if (st != ST_OK)
        return st;
    w.n = w.n_tokens / size;
    if (most > 0 && w.n > most)
        w.n = most;
    if (w.n_tokens < least || w.n == 0) {
        if (w.n_tokens < least)
            log_error("the text has %zu tokens, at least %zu are needed", w.n_tokens, least);
        else
            log_error("the text has %zu tokens, fewer than one window of %zu (-c sets it)", w.n_tokens, size);
        free(w.tokens);
        return ST_USAGE;
    }
    if (tokenizer_adds_bos(t) && tokenizer_bos(t) >= 0)
        for (size_t i = 0; i < w.n; i++)
            w.tokens[i * size] = tokenizer_bos(t);
    *out = w;
    return ST_OK;
}

void windows_free(struct windows *w)
{
    free(w->tokens);
    *w = (struct windows){0};
}

/* Windows that are being scored: that of sequence i has its scores at nll + i * n_scores. */
struct scoring {
    struct session *s;
    const struct windows *w;
    size_t next, end;      /* next: to be submitted */
    uint32_t from, n_scores, n_at_once;
    struct sequence *sequences[SCHEDULE_SEQUENCES];
    uint32_t got[SCHEDULE_SEQUENCES]; /* scores */
    float *nll;            /* [n_at_once, n_scores] */
};

/* Sequence i takes the next window. The last token is only a successor: it need not run. */
static status submit_window(struct scoring *g, uint32_t i)
{
    const int32_t *tokens = g->w->tokens + g->next * g->w->size;
    const uint32_t n = (uint32_t)g->w->size - 1;
    const struct wish wish = {.kind = WISH_SCORES, .from = g->from, .successor = tokens[n]};
    g->next++;
    g->got[i] = 0;
    session_cut(g->s, g->sequences[i], 0);
    status st = session_text(g->s, g->sequences[i], tokens, n);
    return st ? st : session_submit(g->s, g->sequences[i], &wish, NULL);
}

static void take_scores(struct scoring *g, const struct session_event *e)
{
    for (uint32_t i = 0; i < g->n_at_once; i++) {
        if (g->sequences[i] != e->sequence || e->kind != WISH_SCORES)
            continue;
        memcpy(g->nll + (size_t)i * g->n_scores + g->got[i], e->answer.values, e->answer.n_values * sizeof *g->nll);
        g->got[i] += e->answer.n_values;
    }
}

/* Until sequence i's window is done. */
static status await_window(struct scoring *g, uint32_t i, struct score *out)
{
    while (g->got[i] < g->n_scores) {
        struct session_event e;
        status st = session_wait(g->s, &e);
        if (st || e.st)
            return st ? st : e.st;
        take_scores(g, &e);
    }
    *out = (struct score){.windows = 1, .scored = g->n_scores};
    for (const float *nll = g->nll + (size_t)i * g->n_scores, *end = nll + g->n_scores; nll < end; nll++) {
        out->sum += *nll;
        out->squares += (double)*nll * *nll;
    }
    return ST_OK;
}

static status score_all(struct scoring *g, window_scored *each, void *arg)
{
    const size_t begin = g->next;
    status st = ST_OK;
    for (uint32_t i = 0; i < g->n_at_once && !st; i++)
        st = session_open(g->s, &g->sequences[i]);
    for (uint32_t i = 0; i < g->n_at_once && !st; i++)
        st = submit_window(g, i);
    for (size_t w = begin; w < g->end && !st; w++) {
        const uint32_t i = (uint32_t)((w - begin) % g->n_at_once);
        struct score s;
        st = await_window(g, i, &s);
        if (!st)
            st = each(arg, w, &s);
        if (!st && g->next < g->end)
            st = submit_window(g, i);
    }
    for (uint32_t i = 0; i < g->n_at_once && g->sequences[i]; i++)
        session_close(g->s, g->sequences[i]);
    return st;
}

status windows_score(struct session *session, const struct windows *w, size_t begin, size_t end, window_scored *each,
                     void *arg)
{
    const uint32_t most = session_limits(session).n_sequences, from = (uint32_t)w->size / 2;
    struct scoring g = {.s = session, .w = w, .next = begin, .end = end, .from = from,
                        .n_scores = (uint32_t)w->size - from - 1,
                        .n_at_once = end - begin < most ? (uint32_t)(end - begin) : most};
    if (begin == end)
        return ST_OK;
    g.nll = malloc((size_t)g.n_at_once * g.n_scores * sizeof *g.nll);
    if (!g.nll) {
        log_error("no memory for %u scores", g.n_scores);
        return ST_NOMEM;
    }
    const status st = score_all(&g, each, arg);
    free(g.nll);
    return st;
}
