/* After the last layer: the final norm, the logits, and what the step wants of them. */
#include <math.h>
#include <string.h>

#include "base/log.h"
#include "worker/internal.h"

struct logits {
    struct worker *w;
    struct acts x;              /* of the rows wanted */
    uint32_t n;                 /* rows, at most LOGIT_ROWS */
    const struct wire_step *step;
    uint32_t first;             /* token index of row 0 */
};

static void compute_groups(void *arg, int64_t begin, int64_t end, int thread)
{
    struct logits *l = arg;
    struct stage *s = &l->w->stage;
    (void)thread;
    l->w->o.kernels->matmul(&s->output, begin, end, &l->x, l->n, s->logits, s->output.rows);
}

/* logits[i] of tokens first + i, i < n. */
static void compute_logits(struct worker *w, struct logits *l)
{
    struct stage *s = &w->stage;
    const struct hparams *hp = &w->o.model->hp;
    l->x = acts_slice(&s->in, 0, 0, hp->d_model);
    for (uint32_t i = 0; i < l->n; i++)
        w->o.kernels->rms_norm(s->x + (l->first + i) * hp->d_model, s->out_norm, hp->d_model, hp->norm_eps,
                               l->x.f32 + i * hp->d_model);
    if (dtype_is_quantised(s->output.type))
        w->o.kernels->quantize(&l->x, 0, l->n);
    pool_for(w->pool, s->output.groups, group_grain(w, s->output.groups), compute_groups, l);
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
    const int64_t n_vocab = s->output.rows;
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
    struct wire_result r = {.id = s->id, .token = token, .n_values = n};
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
        compute_logits(w, &l);
        pool_for(w->pool, l.n, 1, score_rows, &l);
    }
    return send_result(w, s, -1, w->stage.scores + s->score_from, s->n_tokens - s->score_from);
}

status head_acknowledge(struct worker *w)
{
    return send_result(w, &(struct wire_step){0}, -1, NULL, 0);
}

status head_run(struct worker *w, const struct wire_step *s)
{
    struct stage *stage = &w->stage;
    if (s->want == WANT_SCORES)
        return send_scores(w, s);
    for (uint32_t t = 0; t < s->n_tokens; t++)
        sampler_accept(stage->sampler, wire_token(s->tokens, t));
    if (s->want == WANT_NOTHING)
        return send_result(w, s, -1, NULL, 0);
    struct logits l = {.w = w, .step = s, .n = 1, .first = s->n_tokens - 1};
    compute_logits(w, &l);
    int32_t token = sampler_pick(stage->sampler, stage->logits);
    return send_result(w, s, token, stage->logits, s->want == WANT_LOGITS ? w->limits.n_vocab : 0);
}
