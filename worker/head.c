#include "worker/head.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "sampling/log_prob.h"
#include "worker/chosen.h"
#include "worker/samplers.h"

struct head {
    struct rank *r;
    struct owners *owners;
    struct answers *answers;
    bool is_last;                    /* it samples */
    float *logits;                   /* [CHOSEN_MOST, n_vocab], last stage */
    struct samplers samplers;        /* last stage */
    /* What the step under way brings, until it is sent: */
    struct wire_result found;
    struct wire_result_copy lists;   /* its answers, tokens, tops */
    float *values;                   /* [wire_most_values] */
    float *states;                   /* [CHOSEN_MOST, d_model] */
    int64_t *sum;                    /* [d_model] of states */
    uint32_t value_at[WIRE_SEQUENCES], top_at[WIRE_SEQUENCES]; /* where a run's are */
    struct outbox result;
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
    h->logits = arena_alloc(&r->arena, (size_t)CHOSEN_MOST * r->limits.n_vocab * sizeof *h->logits);
    samplers_lay(&h->samplers, &r->limits, r->o->trie, &r->arena);
    wire_lay_result_copy(&h->lists, &r->limits, &r->arena);
    h->values = arena_alloc(&r->arena, (size_t)wire_most_values(&r->limits) * sizeof *h->values);
    h->states = arena_alloc(&r->arena, (size_t)CHOSEN_MOST * r->limits.d_model * sizeof *h->states);
    h->sum = arena_alloc(&r->arena, r->limits.d_model * sizeof *h->sum);
    outbox_lay(&r->arena, &h->result, wire_result_max(&r->limits));
}

bool head_owes_result(const struct head *h)
{
    return h->is_last && !outbox_free(&h->result);
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

/* logits[i] of the i-th chosen token. Where all ranks have the residual stream they know after which tokens one is
 * drawn; when a text is scored they are asked, so that nobody computes more than is taken. */
static status compute_logits(struct head *h, const struct task *t, bool scored)
{
    struct rank *r = h->r;
    struct device *home = r->home;
    owners_begin(h->owners);
    status st = home->ops->norm(home, &t->work);
    if (!st && (!r->o->plan->residual_all || scored))
        st = owners_ask(h->owners, t);
    if (st)
        return st;
    devices_logits(r->devices, &t->work, USE_OWN, false, h->logits, r->limits.n_vocab);
    count_own(r);
    st = devices_found(r->devices);
    st = st ? st : owners_await(h->owners, t, WIRE_LOGITS, take_logits, h);
    return st ? st : home->ops->check_logits(home, &t->work, h->logits);
}

/* ---- what is wanted ---- */

/* Room for what every run wants. */
static void begin_result(struct head *h, const struct wire_step *s)
{
    h->found = (struct wire_result){.id = s->id, .n_runs = s->n_runs, .answers = h->lists.answers,
                                    .tokens = h->lists.tokens, .tops = h->lists.tops};
    for (uint32_t i = 0; i < s->n_runs; i++) {
        h->lists.answers[i] = wire_answer_to(&s->runs[i], &h->r->limits);
        h->value_at[i] = h->found.n_values;
        h->top_at[i] = h->found.n_tops;
        h->found.n_values += h->lists.answers[i].n_values;
        h->found.n_tops += h->lists.answers[i].n_top;
    }
}

/* At the place-th of those tokens of a run of which that is wanted: the best tokens, and the log probability of one. */
static void put_top(struct head *h, uint32_t run, const struct wire_run *r, uint32_t place, const float *logits,
                    int32_t token)
{
    struct log_prob best[WIRE_TOP];
    struct wire_top *tops = h->lists.tops + h->top_at[run] + (size_t)place * r->n_top;
    const double total = log_total(logits, (int32_t)h->r->limits.n_vocab);
    const uint32_t n = log_prob_top(&h->samplers.scratch, logits, total, r->n_top, best);
    for (uint32_t i = 0; i < n; i++)
        tops[i] = (struct wire_top){best[i].id, best[i].log_p};
    h->values[h->value_at[run] + place] = log_prob(logits, total, token);
}

/* Draws after the i-th chosen token, seeing those of its run up to there. */
static void draw(struct head *h, const struct chosen *c, uint32_t i)
{
    const struct wire_step *s = c->t.step;
    const uint32_t run = c->of[i].run, place = c->of[i].place, n_vocab = h->r->limits.n_vocab;
    const struct wire_run *r = &s->runs[run];
    const float *logits = h->logits + (size_t)i * n_vocab;
    float *values = h->values + h->value_at[run];
    samplers_accept(&h->samplers, r, s->tokens + (c->tokens[i] - place), place);
    const int32_t token = samplers_pick(&h->samplers, r, logits);
    h->lists.tokens[h->found.n_tokens++] = token;
    if (r->want == WANT_TOP)
        put_top(h, run, r, 0, logits, token);
    if (r->want == WANT_LOGITS)
        memcpy(values, logits, n_vocab * sizeof *values);
}

static status draw_tokens(struct head *h, const struct wire_step *s, const struct batch *b)
{
    struct chosen c;
    chosen_begin(&c, s, b);
    while (chosen_next(&c, false)) {
        status st = compute_logits(h, &c.t, false);
        if (st)
            return st;
        for (uint32_t i = 0; i < c.t.work.n; i++)
            draw(h, &c, i);
    }
    return ST_OK;
}

/* What is wanted of the successors of the chosen tokens; the logits are used up. */
static void put_scores(struct head *h, const struct wire_step *s, const struct chosen *c)
{
    struct device *home = h->r->home;
    int32_t next[CHOSEN_MOST];
    float scores[CHOSEN_MOST];
    bool scored = false;
    for (uint32_t i = 0; i < c->t.work.n; i++) {
        const uint32_t run = c->of[i].run, place = c->of[i].place;
        const struct wire_run *r = &s->runs[run];
        next[i] = place + 1 < r->n_tokens ? s->tokens[c->tokens[i] + 1] : r->next_token;
        scored |= r->want == WANT_SCORES;
        if (r->want == WANT_LOG_PROBS)
            put_top(h, run, r, place - r->from, h->logits + (size_t)i * h->r->limits.n_vocab, next[i]);
    }
    if (!scored)
        return;
    home->ops->score(home, c->t.work.n, h->logits, next, scores);
    for (uint32_t i = 0; i < c->t.work.n; i++)
        if (s->runs[c->of[i].run].want == WANT_SCORES)
            h->values[h->value_at[c->of[i].run] + c->of[i].place - s->runs[c->of[i].run].from] = scores[i];
}

static status score_tokens(struct head *h, const struct wire_step *s, const struct batch *b)
{
    struct chosen c;
    chosen_begin(&c, s, b);
    while (chosen_next(&c, true)) {
        status st = compute_logits(h, &c.t, true);
        if (st)
            return st;
        put_scores(h, s, &c);
    }
    return ST_OK;
}

/* The normed states [n, d_model] of the batch's tokens from `first` on. */
static status put_states(struct head *h, const struct batch *b, uint32_t first, uint32_t n, float *states)
{
    struct device *home = h->r->home;
    uint32_t tokens[CHOSEN_MOST];
    const struct work w = {.part = DEVICE_OUTPUT, .n = n, .batch = b, .tokens = tokens};
    for (uint32_t i = 0; i < n; i++)
        tokens[i] = first + i;
    status st = home->ops->norm(home, &w);
    if (st)
        return st;
    home->ops->export_input(home, &w, home->in[USE_OWN], &(struct input_bytes){.f32 = states});
    return devices_found(h->r->devices);
}

/* The sum of those from `first` to `end`. */
static status put_sum(struct head *h, const struct batch *b, uint32_t first, uint32_t end, float *values)
{
    const uint32_t d = h->r->limits.d_model;
    status st = ST_OK;
    memset(h->sum, 0, d * sizeof *h->sum);
    while (first < end && !st) {
        const uint32_t n = end - first < CHOSEN_MOST ? end - first : CHOSEN_MOST;
        st = put_states(h, b, first, n, h->states);
        for (uint32_t i = 0; i < n && !st; i++)
            wire_sum_state(h->sum, h->states + (size_t)i * d, d);
        first += n;
    }
    wire_sum_put(h->sum, d, values);
    return st;
}

/* All texts have all of their runs' tokens; the states of those who want them. */
static status end_runs(struct head *h, const struct wire_step *s, const struct batch *b)
{
    status st = ST_OK;
    for (uint32_t i = 0, first = 0; i < s->n_runs && !st; first += s->runs[i++].n_tokens) {
        const struct wire_run *r = &s->runs[i];
        float *values = h->values + h->value_at[i];
        const uint32_t end = first + r->n_tokens;
        samplers_accept(&h->samplers, r, s->tokens + first, r->n_tokens - 1);
        if (r->want == WANT_STATES)
            st = put_states(h, b, end - 1, 1, values);
        if (r->want == WANT_SUM)
            st = put_sum(h, b, first + r->from, end, values);
    }
    return st;
}

static status send_result(struct head *h)
{
    struct wire_result *found = &h->found;
    status st = outbox_wait(h->r->exchange, &h->result);
    if (st)
        return st;
    found->counts = h->r->counts;
    const size_t size = wire_result_encode(found, h->result.buffer, h->result.capacity);
    memcpy(found->values, h->values, found->n_values * sizeof *h->values);
    return outbox_send(h->r->exchange, &h->result, 0, WIRE_RESULT, size); /* the coordinator is rank 0 */
}

/* What a rank that is not the home does after the last layer. */
static status lend_hand(struct head *h, const struct wire_step *s, const struct batch *b)
{
    struct device *home = h->r->home;
    struct chosen c;
    status st = ST_OK;
    chosen_begin(&c, s, b);
    while (!st && owns(h->r, DEVICE_OUTPUT, 0, h->r->rank) && chosen_next(&c, false)) {
        st = home->ops->norm(home, &c.t.work);
        st = st ? st : answers_send_logits(h->answers, s->id, &c.t.work);
    }
    return st;
}

status head_begin(struct head *h, const struct wire_step *s)
{
    return h->is_last ? samplers_begin(&h->samplers, s) : ST_OK;
}

status head_run(struct head *h, const struct wire_step *s, const struct batch *b)
{
    if (!h->is_last)
        return lend_hand(h, s, b);
    begin_result(h, s);
    status st = draw_tokens(h, s, b);
    st = st ? st : score_tokens(h, s, b);
    st = st ? st : end_runs(h, s, b);
    return st ? st : send_result(h);
}
