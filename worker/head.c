#include "worker/head.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "sampling/sampler.h"

enum { LOGIT_ROWS = WIRE_LOGIT_TOKENS }; /* tokens whose logits are computed together when a text is scored */

struct head {
    struct rank *r;
    struct owners *owners;
    struct answers *answers;
    bool is_last;                    /* it samples */
    float *logits;                   /* [LOGIT_ROWS, n_vocab], last stage */
    float *scores;                   /* [n_batch] minus log probabilities, last stage */
    struct outbox result;
    struct sampler sampler;          /* last stage */
    struct sampler_scratch picking;
};

status head_new(struct rank *r, struct owners *owners, struct answers *answers, struct head **out)
{
    struct head *h = calloc(1, sizeof *h);
    if (!h) {
        log_error("out of memory for the end of steps");
        return ST_NOMEM;
    }
    *h = (struct head){.r = r, .owners = owners, .answers = answers,
                       .is_last = stage_place(r->o->plan, r->rank).is_last};
    atomic_store(&h->result.send.done, true);
    *out = h;
    return ST_OK;
}

void head_free(struct head *h) { free(h); }

void head_lay(struct head *h)
{
    struct rank *r = h->r;
    if (!h->is_last)
        return;
    h->logits = arena_alloc(&r->arena, (size_t)LOGIT_ROWS * r->limits.n_vocab * sizeof *h->logits);
    h->scores = arena_alloc(&r->arena, r->limits.n_batch * sizeof *h->scores);
    sampler_lay(&h->sampler, r->limits.n_ctx, &r->arena);
    sampler_lay_scratch(&h->picking, (int32_t)r->limits.n_vocab, &r->arena);
    outbox_lay(&r->arena, &h->result, wire_result_max(&r->limits));
}

bool head_owes_result(const struct head *h)
{
    return h->r->rank == 0 && h->is_last && !atomic_load_explicit(&h->result.send.done, memory_order_acquire);
}

/* ---- logits ---- */

/* Puts an owner's rows in their place: device by device, as it has them. */
static void place_rows(const struct head *h, const struct wire_logits *l, int owner)
{
    const struct plan *p = h->r->o->plan;
    const int64_t n_vocab = h->r->limits.n_vocab;
    int64_t at = 0;
    for (int i = 0, holder; (holder = holder_of(p, owner, i)) >= 0; i++) {
        int64_t begin, end;
        plan_rows(p, holder, n_vocab, &begin, &end);
        for (uint32_t t = 0; t < l->n_tokens && begin < end; t++)
            memcpy(h->logits + t * n_vocab + begin, l->values + t * l->n_rows + at,
                   (size_t)(end - begin) * sizeof *h->logits);
        at += end - begin;
    }
}

static status take_logits(void *arg, struct arrival *a, const struct task *t)
{
    struct head *h = arg;
    struct rank *r = h->r;
    struct wire_logits l;
    log_sender(a->from);
    status st = wire_logits_decode(a->data, a->size, &r->limits,
                                   (uint32_t)rank_rows(r->o->plan, &r->shape, a->from), &l);
    log_sender(-1);
    if (!st) {
        const struct work found = {.part = DEVICE_OUTPUT, .n = l.n_tokens};
        st = check_answer(a->from, "logits", l.id, &found, t);
    }
    if (st)
        return st;
    owners_count(h->owners, &l.counts, l.busy_ns);
    place_rows(h, &l, a->from);
    return exchange_release(r->exchange, a);
}

/* Tokens of a step whose logits are computed together. */
struct chosen {
    struct task t;
    uint32_t tokens[LOGIT_ROWS];
};

/* n tokens from `first` on. */
static void choose(struct chosen *c, const struct wire_step *s, const struct batch *b, uint32_t first, uint32_t n)
{
    c->t = (struct task){.step = s->id, .work = {.part = DEVICE_OUTPUT, .n = n, .batch = b, .tokens = c->tokens}};
    for (uint32_t i = 0; i < n; i++)
        c->tokens[i] = first + i;
}

/* logits[i] of the i-th chosen token. Where all ranks have the residual stream they know that the last token's are wanted;
 * when a text is scored they are asked, so that nobody computes more than is taken. */
static status compute_logits(struct head *h, const struct wire_step *s, const struct task *t)
{
    struct rank *r = h->r;
    struct device *home = r->home;
    owners_begin(h->owners);
    status st = home->ops->norm(home, &t->work);
    if (!st && (!r->o->plan->residual_all || s->want == WANT_SCORES))
        st = owners_ask(h->owners, t);
    if (st)
        return st;
    devices_logits(r->devices, &t->work, USE_OWN, false, h->logits, r->limits.n_vocab);
    count_own(r);
    st = owners_await(h->owners, t, WIRE_LOGITS, take_logits, h);
    return st ? st : home->ops->check_logits(home, &t->work, h->logits);
}

/* ---- results ---- */

static status send_result(struct head *h, const struct wire_step *s, int32_t token, const float *values, uint32_t n)
{
    struct wire_result r = {.id = s->id, .token = token, .n_values = n, .counts = h->r->counts};
    status st = outbox_wait(h->r->exchange, &h->result);
    if (st)
        return st;
    size_t size = wire_result_encode(&r, &h->r->limits, h->result.buffer, h->result.capacity);
    if (n)
        memcpy(r.values, values, n * sizeof *values);
    return outbox_send(h->r->exchange, &h->result, 0, WIRE_RESULT, size); /* the coordinator is rank 0 */
}

/* The token after `t` in the text. */
static int32_t successor(const struct wire_step *s, uint32_t t)
{
    return t + 1 < s->n_tokens ? wire_token(s->tokens, t + 1) : s->next_token;
}

static status send_scores(struct head *h, const struct wire_step *s, const struct batch *b)
{
    struct device *home = h->r->home;
    struct chosen c;
    int32_t next[LOGIT_ROWS];
    for (uint32_t first = s->score_from, n; first < s->n_tokens; first += n) {
        n = s->n_tokens - first < LOGIT_ROWS ? s->n_tokens - first : LOGIT_ROWS;
        choose(&c, s, b, first, n);
        status st = compute_logits(h, s, &c.t);
        if (st)
            return st;
        for (uint32_t i = 0; i < n; i++)
            next[i] = successor(s, first + i);
        home->ops->score(home, n, h->logits, next, h->scores + first);
    }
    return send_result(h, s, -1, h->scores + s->score_from, s->n_tokens - s->score_from);
}

/* What a rank that is not the home does after the last layer. */
static status lend_hand(struct head *h, const struct wire_step *s, const struct batch *b)
{
    struct device *home = h->r->home;
    struct chosen c;
    if ((s->want != WANT_TOKEN && s->want != WANT_LOGITS) || !owns(h->r, DEVICE_OUTPUT, 0, h->r->rank))
        return ST_OK;
    choose(&c, s, b, s->n_tokens - 1, 1);
    status st = home->ops->norm(home, &c.t.work);
    return st ? st : answers_send_logits(h->answers, s->id, &c.t.work);
}

status head_run(struct head *h, const struct wire_step *s, const struct batch *b)
{
    struct chosen c;
    if (!h->is_last)
        return lend_hand(h, s, b);
    sampler_truncate(&h->sampler, s->position);
    for (uint32_t t = 0; t < s->n_tokens; t++)
        sampler_accept(&h->sampler, wire_token(s->tokens, t));
    if (s->want == WANT_SCORES)
        return send_scores(h, s, b);
    if (s->want == WANT_NOTHING)
        return send_result(h, s, -1, NULL, 0);
    choose(&c, s, b, s->n_tokens - 1, 1);
    status st = compute_logits(h, s, &c.t);
    if (st)
        return st;
    int32_t token = sampler_pick(&h->sampler, &h->picking, h->logits);
    return send_result(h, s, token, h->logits, s->want == WANT_LOGITS ? h->r->limits.n_vocab : 0);
}

/* ---- sampling ---- */

status head_take_sampling(struct head *h, struct arrival *a)
{
    struct wire_sampling s;
    if (!h->is_last || a->from != 0) {
        log_error("sampling parameters of %zu bytes from rank %d, which the plan does not foresee", a->size, a->from);
        return ST_FORMAT;
    }
    log_sender(a->from);
    status st = wire_sampling_decode(a->data, a->size, &s);
    log_sender(-1);
    if (!st)
        st = exchange_release(h->r->exchange, a);
    if (st)
        return st;
    h->sampler.params = (struct sampler_params){.temperature = s.temperature,
                                                .top_k = s.top_k,
                                                .top_p = s.top_p,
                                                .min_p = s.min_p,
                                                .repeat_penalty = s.repeat_penalty,
                                                .presence_penalty = s.presence_penalty,
                                                .frequency_penalty = s.frequency_penalty,
                                                .repeat_last = s.repeat_last,
                                                .seed = s.seed};
    h->r->counts = (struct wire_counts){0};
    return send_result(h, &(struct wire_step){0}, -1, NULL, 0);
}
