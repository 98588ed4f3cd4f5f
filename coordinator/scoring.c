#include "coordinator/scoring.h"

#include <math.h>
#include <stdlib.h>
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

status windows_score(struct session *session, const struct windows *w, size_t begin, size_t end, window_scored *each,
                     void *arg)
{
    const size_t from = w->size / 2, n_scores = w->size - from - 1;
    float *nll = malloc(n_scores * sizeof *nll);
    status st = ST_OK;
    if (!nll) {
        log_error("no memory for %zu scores", n_scores);
        return ST_NOMEM;
    }
    for (size_t i = begin; i < end && st == ST_OK; i++) {
        struct score s = {.windows = 1, .scored = n_scores};
        st = session_score(session, w->tokens + i * w->size, w->size, from, nll);
        for (size_t j = 0; j < n_scores && st == ST_OK; j++) {
            s.sum += nll[j];
            s.squares += (double)nll[j] * nll[j];
        }
        if (st == ST_OK)
            st = each(arg, i, &s);
    }
    free(nll);
    return st;
}
