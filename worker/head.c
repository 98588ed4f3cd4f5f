/* After the last layer: the final norm, the logits, and what the step wants of them. */
#include <math.h>
#include <string.h>

#include "base/log.h"
#include "worker/internal.h"

enum { LOGITS_CHECKED = 16384 }; /* by a thread at a time */

/* Puts an owner's rows in their place. */
static status take_logits(struct worker *w, struct arrival *a, const struct task *t)
{
    struct wire_logits l;
    const int64_t n_vocab = w->o.model->hp.n_vocab;
    int64_t begin, end;
    plan_rows(w->o.plan, a->from, n_vocab, &begin, &end);
    log_sender(a->from);
    status st = wire_logits_decode(a->data, a->size, &w->limits, (uint32_t)(end - begin), &l);
    log_sender(-1);
    if (!st) {
        const struct task found = {.part = PART_OUTPUT, .step = l.id, .n = l.n_tokens};
        st = check_answer(a->from, "logits", &found, t);
    }
    if (!st)
        count_answer(w, &l.counts, l.busy_ns);
    for (uint32_t i = 0; !st && i < t->n; i++)
        memcpy(w->stage.logits + i * n_vocab + begin, l.values + i * (end - begin),
               (size_t)(end - begin) * sizeof(float));
    return st ? st : transport_release(w->o.transport, a);
}

/* The tokens whose logits are computed together. */
struct logits {
    struct worker *w;
    const struct wire_step *step;
    uint32_t first, n;          /* tokens first .. first + n - 1 of the step, n at most LOGIT_ROWS */
};

static struct task output_task(const struct wire_step *s, uint32_t first, uint32_t n)
{
    return (struct task){.part = PART_OUTPUT, .step = s->id, .position = s->position + first, .n = n};
}

/* stage.in[i] = norm(x) of token first + i of the step, i < t->n, as kernels read it. */
static status norm_last(struct worker *w, uint32_t first, const struct task *t)
{
    return norm_tokens(w, w->stage.out_norm, w->stage.x + first * w->o.model->hp.d_model, t);
}

struct checking {
    const struct worker *w;
    _Atomic bool broken;
};

static void check_logits(void *arg, int64_t begin, int64_t end, int thread)
{
    struct checking *c = arg;
    (void)thread;
    if (!all_numbers(c->w->stage.logits + begin, end - begin))
        c->broken = true;
}

/* stage.logits[i] of token first + i, i < n. Where all ranks have the residual stream they know that the last token's
 * are wanted; when a text is scored they are asked, so that nobody computes more than is taken. */
static status compute_logits(struct worker *w, const struct logits *l)
{
    struct stage *s = &w->stage;
    const struct task t = output_task(l->step, l->first, l->n);
    exchange_begin(w);
    status st = norm_last(w, l->first, &t);
    if (!st && (!w->o.plan->residual_all || l->step->want == WANT_SCORES))
        st = owners_ask(w, &t);
    if (st)
        return st;
    if (owner_of(w, PART_OUTPUT, 0, w->rank))
        rows_compute(w, &s->in, l->n, s->logits + w->rows.begin, w->o.model->hp.n_vocab);
    struct wire_counts counts = take_counts(w);
    wire_counts_add(&s->counts, &counts);
    if ((st = owners_await(w, &t, WIRE_LOGITS, take_logits)) != ST_OK)
        return st;
    struct checking c = {.w = w};
    pool_for(w->pool, l->n * w->o.model->hp.n_vocab, LOGITS_CHECKED, check_logits, &c);
    return c.broken ? not_numbers(w, &t, "the logits", s->logits, w->o.model->hp.n_vocab) : ST_OK;
}

/* The token after `t` in the text. */
static int32_t successor(const struct wire_step *s, uint32_t t)
{
    return t + 1 < s->n_tokens ? wire_token(s->tokens, t + 1) : s->next_token;
}

/* scores[t] = -log p(successor of token t): log-sum-exp from the softmax, whose largest value is 1 / sum. */
static void score_rows(void *arg, int64_t begin, int64_t end, int thread)
{
    struct logits *l = arg;
    struct stage *s = &l->w->stage;
    const int64_t n_vocab = l->w->o.model->hp.n_vocab;
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        float *row = s->logits + i * n_vocab;
        int32_t target = successor(l->step, l->first + (uint32_t)i);
        int64_t top = 0;
        for (int64_t v = 1; v < n_vocab; v++)
            top = row[v] > row[top] ? v : top;
        double behind = (double)row[top] - (target >= 0 ? (double)row[target] : 0.0);
        l->w->o.kernels->softmax(row, n_vocab);
        s->scores[l->first + (uint32_t)i] = (float)(behind - log((double)row[top]));
    }
}

static status send_result(struct worker *w, const struct wire_step *s, int32_t token, const float *values, uint32_t n)
{
    struct outbox *box = &w->stage.result;
    struct wire_result r = {.id = s->id, .token = token, .n_values = n, .counts = w->stage.counts};
    status st = outbox_wait(w, box);
    if (st)
        return st;
    size_t size = wire_result_encode(&r, &w->limits, box->buffer, box->capacity);
    if (n)
        memcpy(r.values, values, n * sizeof *values);
    return outbox_send(w, box, 0, WIRE_RESULT, size); /* the coordinator is rank 0 */
}

static status send_scores(struct worker *w, const struct wire_step *s)
{
    struct logits l = {.w = w, .step = s};
    for (l.first = s->score_from; l.first < s->n_tokens; l.first += l.n) {
        l.n = s->n_tokens - l.first < LOGIT_ROWS ? s->n_tokens - l.first : LOGIT_ROWS;
        status st = compute_logits(w, &l);
        if (st)
            return st;
        pool_for(w->pool, l.n, 1, score_rows, &l);
    }
    return send_result(w, s, -1, w->stage.scores + s->score_from, s->n_tokens - s->score_from);
}

status head_acknowledge(struct worker *w)
{
    w->stage.counts = (struct wire_counts){0};
    return send_result(w, &(struct wire_step){0}, -1, NULL, 0);
}

/* What a rank that is not the home does after the last layer. */
static status lend_hand(struct worker *w, const struct wire_step *s)
{
    if ((s->want != WANT_TOKEN && s->want != WANT_LOGITS) || !owner_of(w, PART_OUTPUT, 0, w->rank))
        return ST_OK;
    const struct task t = output_task(s, s->n_tokens - 1, 1);
    status st = norm_last(w, s->n_tokens - 1, &t);
    return st ? st : logits_send(w, s->id, &w->stage.in, 1);
}

status head_run(struct worker *w, const struct wire_step *s)
{
    struct stage *stage = &w->stage;
    if (!stage->is_last)
        return lend_hand(w, s);
    sampler_truncate(&stage->sampler, s->position);
    for (uint32_t t = 0; t < s->n_tokens; t++)
        sampler_accept(&stage->sampler, wire_token(s->tokens, t));
    if (s->want == WANT_SCORES)
        return send_scores(w, s);
    if (s->want == WANT_NOTHING)
        return send_result(w, s, -1, NULL, 0);
    struct logits l = {.w = w, .step = s, .n = 1, .first = s->n_tokens - 1};
    status st = compute_logits(w, &l);
    if (st)
        return st;
    int32_t token = sampler_pick(&stage->sampler, &stage->picking, stage->logits);
    return send_result(w, s, token, stage->logits, s->want == WANT_LOGITS ? w->limits.n_vocab : 0);
}
