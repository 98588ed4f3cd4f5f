#include "coordinator/dialogue.h"

#include <stdlib.h>
#include <string.h>
#include "base/log.h"

struct dialogue {
    struct session *session;
    struct sequence *sequence;
    struct sampler_params sampling;
    bool new_sampling; /* the ranks do not know it */
};

status dialogue_create(struct session *s, struct dialogue **out)
{
    struct dialogue *d = calloc(1, sizeof *d);
    if (!d) {
        log_error("out of memory for a dialogue");
        return ST_NOMEM;
    }
    d->session = s;
    status st = session_open(s, &d->sequence);
    if (st) {
        free(d);
        return st;
    }
    *out = d;
    return ST_OK;
}

void dialogue_free(struct dialogue *d)
{
    if (d)
        session_close(d->session, d->sequence);
    free(d);
}

/* A text that runs, and what is wanted of it. */
struct passage {
    const int32_t *tokens; /* [n] */
    uint32_t n, held;      /* held: tokens of the dialogue before it */
    struct wish wish;
    int32_t token;         /* out: the token drawn */
    float *values;         /* out: scores or logits; may be NULL */
    dialogue_progress *progress;
    void *progress_arg;
};

static void tell_progress(const struct dialogue *d, const struct passage *p, uint32_t n_run)
{
    if (p->progress && p->n > session_limits(d->session).n_batch && n_run > p->held)
        p->progress(p->progress_arg, "prompt", n_run - p->held, p->n);
}

/* Until all that is wanted has come. */
static status await(struct dialogue *d, struct passage *p)
{
    for (bool over = false; !over;) {
        struct session_event e;
        status st = session_wait(d->session, &e);
        if (st || (e.sequence == d->sequence && e.st))
            return st ? st : e.st;
        if (e.sequence != d->sequence)
            continue;
        tell_progress(d, p, e.n_run);
        if (e.answer.n_tokens)
            p->token = e.answer.tokens[0];
        if (p->values && e.answer.n_values) {
            memcpy(p->values, e.answer.values, e.answer.n_values * sizeof *p->values);
            p->values += e.answer.n_values;
        }
        over = e.over || e.answer.n_tokens;
    }
    return ST_OK;
}

static status run(struct dialogue *d, struct passage *p)
{
    status st = session_text(d->session, d->sequence, p->tokens, p->n);
    if (!st)
        st = session_submit(d->session, d->sequence, &p->wish, d->new_sampling ? &d->sampling : NULL);
    if (!st)
        st = await(d, p);
    session_end(d->session, d->sequence);
    if (st)
        session_cut(d->session, d->sequence, p->held);
    else
        d->new_sampling = false;
    return st;
}

/* Whether tokens[n] may follow a text of `held`. */
static status check(const struct dialogue *d, size_t held, const int32_t *tokens, size_t n)
{
    const struct wire_limits lim = session_limits(d->session);
    status st = session_check(d->session);
    if (st)
        return st;
    if (n < 1) {
        log_error("no tokens to run");
        return ST_USAGE;
    }
    if (n > lim.n_ctx - held) {
        log_error("the context is full: it has room for %u tokens, %zu are taken and %zu more are wanted; -c sets it",
                  lim.n_ctx, held, n);
        return ST_FULL;
    }
    if (held + n > (size_t)lim.n_pages * WIRE_PAGE) {
        log_error("all KV memory has room for %zu tokens, %zu are taken and %zu more are wanted; --kv-budget sets it",
                  (size_t)lim.n_pages * WIRE_PAGE, held, n);
        return ST_FULL;
    }
    return session_check_tokens(d->session, tokens, n);
}

static status append(struct dialogue *d, struct passage *p, size_t n)
{
    p->held = d->sequence->n_tokens;
    status st = check(d, p->held, p->tokens, n);
    p->n = (uint32_t)n;
    return st ? st : run(d, p);
}

status dialogue_prompt(struct dialogue *d, const int32_t *tokens, size_t n, int32_t *next, dialogue_progress *progress,
                       void *arg)
{
    struct passage p = {.tokens = tokens, .wish = {.kind = next ? WISH_TOKEN : WISH_NOTHING}, .progress = progress,
                        .progress_arg = arg};
    status st = append(d, &p, n);
    if (!st && next)
        *next = p.token;
    return st;
}

status dialogue_next(struct dialogue *d, int32_t token, int32_t *next)
{
    return dialogue_prompt(d, &token, 1, next, NULL, NULL);
}

status dialogue_logits(struct dialogue *d, const int32_t *tokens, size_t n, float *logits)
{
    struct passage p = {.tokens = tokens, .wish = {.kind = WISH_LOGITS}, .values = logits};
    return append(d, &p, n);
}

status dialogue_score(struct dialogue *d, const int32_t *tokens, size_t n, size_t score_from, float *nll)
{
    status st = check(d, 0, tokens, n);
    if (st)
        return st;
    dialogue_truncate(d, 0);
    if (score_from + 1 >= n)
        return ST_OK;
    /* The last token is only a successor: it need not run. */
    struct passage p = {.tokens = tokens, .n = (uint32_t)n - 1, .values = nll,
                        .wish = {.kind = WISH_SCORES, .from = (uint32_t)score_from, .successor = tokens[n - 1]}};
    return run(d, &p);
}

void dialogue_truncate(struct dialogue *d, size_t n_tokens)
{
    if (n_tokens < d->sequence->n_tokens)
        session_cut(d->session, d->sequence, (uint32_t)n_tokens);
}

size_t dialogue_length(const struct dialogue *d) { return d->sequence->n_tokens; }

status dialogue_sampling(struct dialogue *d, const struct sampler_params *p)
{
    status st = session_check(d->session);
    if (st)
        return st;
    d->sampling = *p;
    d->new_sampling = true;
    return ST_OK;
}
