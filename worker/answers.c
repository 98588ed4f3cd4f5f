#include "worker/answers.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "wire/channels.h"
#include "worker/partials.h"

struct answers {
    struct rank *r;
    struct batches *batches;
    struct wire_copy copy;           /* the request that is being served */
    struct outbox *replies;          /* [n_ranks] PARTIAL or ACTIVE to each stage that may ask */
    struct outbox logits_reply;      /* LOGITS to the last stage */
    struct multicast refusal;        /* FAILED to who sent a request that cannot be answered, and to rank 0 */
    uint64_t served_ns;              /* when the request began that is being served */
};

status answers_new(struct rank *r, struct batches *batches, struct answers **out)
{
    struct answers *s = calloc(1, sizeof *s);
    if (s) {
        *s = (struct answers){.r = r, .batches = batches};
        s->replies = calloc((size_t)r->n_ranks, sizeof *s->replies);
    }
    if (!s || !s->replies || multicast_new(&s->refusal, r->n_ranks)) {
        log_error("out of memory for a rank's answers");
        answers_free(s);
        return ST_NOMEM;
    }
    *out = s;
    return ST_OK;
}

void answers_free(struct answers *s)
{
    if (!s)
        return;
    multicast_free(&s->refusal);
    free(s->replies);
    free(s);
}

status answers_lay(struct answers *s)
{
    struct rank *r = s->r;
    status st = ST_OK;
    for (int i = 0; i < r->n_ranks && !st; i++) {
        const size_t blocks = r->o->plan->residual_all ? 0 : largest_answer(r, i, r->rank);
        const size_t logits = largest_logits(r, i, r->rank);
        if (blocks)
            outbox_lay(&r->arena, &s->replies[i], blocks);
        if (logits)
            outbox_lay(&r->arena, &s->logits_reply, logits);
        if (blocks || logits)
            st = room_lay(r->exchange, &r->arena, i, CHANNEL_REQUESTS, wire_request_max(&r->limits));
    }
    multicast_lay(&r->arena, &s->refusal, WIRE_FAILED_MAX);
    wire_lay_copy(&s->copy, &r->limits, &r->arena);
    return st;
}

/* Makes the outbox for answers to rank `to` ready. Its last answer has arrived, or the stage would not have asked
 * again: the transport need only notice. Nothing is served meanwhile, for x lies in the served input. */
static status open_reply(struct answers *s, struct outbox *box, const struct wire_request *q, int to)
{
    if (!box->buffer) {
        log_error("request of layer %u from rank %d, which the plan does not foresee", q->layer, to);
        return ST_FORMAT;
    }
    enum { MOST_S = 2 };
    const double deadline = clock_s() + MOST_S;
    bool done = false;
    status st = outbox_sent(s->r->exchange, box, &done);
    while (!st && !done && clock_s() < deadline) {
        sched_yield();
        st = outbox_sent(s->r->exchange, box, &done);
    }
    if (!st && !done) {
        log_error("rank %d asks for layer %u without having taken the answer before", to, q->layer);
        st = ST_PEER;
    }
    return st;
}

/* Sends an answer. The request has been read: its place is the transport's again, before the stage can ask anew. */
static status reply(struct answers *s, struct arrival *a, struct outbox *box, int kind, size_t size)
{
    status st = devices_found(s->r->devices);
    st = st ? st : exchange_release(s->r->exchange, a);
    return st ? st : outbox_send(s->r->exchange, box, a->from, kind, size);
}

static status reply_partial(struct answers *s, struct arrival *a, const struct wire_request *q, const struct work *w)
{
    struct rank *r = s->r;
    struct outbox *box = &s->replies[a->from];
    struct wire_partial p = {.id = q->id, .part = q->part, .layer = q->layer, .n_tokens = q->n_tokens};
    status st = devices_part(r->devices, w, USE_SERVED, NULL, NULL);
    if (st)
        return st;
    p.counts = devices_counts(r->devices);
    return reply(s, a, box, WIRE_PARTIAL, partial_write(r, &p, USE_SERVED, s->served_ns, box->buffer, box->capacity));
}

/* The stage has the down projection: it gets the live activations. */
static status reply_active(struct answers *s, struct arrival *a, const struct wire_request *q, const struct work *w)
{
    struct rank *r = s->r;
    struct outbox *box = &s->replies[a->from];
    struct wire_active live = {.id = q->id, .layer = q->layer, .n_tokens = q->n_tokens};
    live.n_pairs = devices_fire(r->devices, w, USE_SERVED);
    live.counts = devices_counts(r->devices);
    live.busy_ns = clock_ns() - s->served_ns;
    size_t size = wire_active_encode(&live, &r->limits, box->buffer, box->capacity);
    devices_live(r->devices, w, &(struct live){.first = live.first, .index = live.index, .value = live.value});
    return reply(s, a, box, WIRE_ACTIVE, size);
}

/* The tokens of an attention's request on the pages of their sequences. */
static status take_batch(struct answers *s, const struct wire_request *q, struct batch *b)
{
    const struct wire_step step = {.id = q->id, .n_runs = q->n_runs, .n_tokens = q->n_tokens, .n_changes = q->n_changes,
                                   .runs = q->runs, .changes = q->changes};
    status st = batches_take(s->batches, USE_SERVED, &step, b);
    if (!st)
        devices_copy_pages(s->r->devices, (int)q->layer, q->changes, q->n_changes);
    return st;
}

/* A request for a layer's heads or neurons. */
static status reply_layer(struct answers *s, struct arrival *a, const struct wire_request *q, struct work *w)
{
    const struct plan *plan = s->r->o->plan;
    const bool attention = w->part == DEVICE_ATTENTION;
    struct batch batch;
    status st = open_reply(s, &s->replies[a->from], q, a->from);
    if (st)
        return st;
    if (!owns(s->r, w->part, w->layer, s->r->rank) || plan->layers[q->layer].stage != a->from) {
        log_error("request of layer %u from rank %d, which is not its stage or of which this rank holds no %s",
                  q->layer, a->from, attention ? "head" : "neuron");
        return ST_FORMAT;
    }
    if (attention && (st = take_batch(s, q, &batch)) != ST_OK)
        return st;
    w->batch = attention ? &batch : NULL;
    return (!attention && plan_down_at_stage(plan, w->layer) ? reply_active : reply_partial)(s, a, q, w);
}

/* What it has of n tokens' logits goes into the outbox. *size: of the message; 0 if it does not fit. */
static void fill_logits(struct answers *s, uint64_t step, const struct work *w, enum device_use use, size_t *size)
{
    struct rank *r = s->r;
    struct outbox *box = &s->logits_reply;
    struct wire_logits l = {.id = step, .n_tokens = w->n,
                            .n_rows = (uint32_t)rank_rows(r->o->plan, &r->shape, r->rank)};
    *size = wire_logits_encode(&l, &r->limits, box->buffer, box->capacity); /* where the values go */
    if (!*size)
        return;
    devices_logits(r->devices, w, use, true, l.values, l.n_rows);
    l.counts = devices_counts(r->devices);
    l.busy_ns = clock_ns() - s->served_ns;
    wire_logits_encode(&l, &r->limits, box->buffer, box->capacity);
}

static status reply_logits(struct answers *s, struct arrival *a, const struct wire_request *q, const struct work *w)
{
    const int last = plan_last_stage(s->r->o->plan);
    size_t size = 0;
    status st = open_reply(s, &s->logits_reply, q, a->from);
    if (st)
        return st;
    if (a->from == last)
        fill_logits(s, q->id, w, USE_SERVED, &size);
    if (!size) {
        log_error("request of the logits of %u tokens from rank %d, expected at most %d from rank %d", q->n_tokens,
                  a->from, WIRE_LOGIT_TOKENS, last);
        return ST_FORMAT;
    }
    return reply(s, a, &s->logits_reply, WIRE_LOGITS, size);
}

status answers_send_logits(struct answers *s, uint64_t step, const struct work *w)
{
    size_t size;
    status st = outbox_wait(s->r->exchange, &s->logits_reply);
    if (st)
        return st;
    s->served_ns = clock_ns();
    fill_logits(s, step, w, USE_OWN, &size);
    st = devices_found(s->r->devices);
    return st ? st : outbox_send(s->r->exchange, &s->logits_reply, plan_last_stage(s->r->o->plan), WIRE_LOGITS, size);
}

static status answer(struct answers *s, struct arrival *a)
{
    struct rank *r = s->r;
    struct wire_request q;
    s->served_ns = clock_ns();
    if (!r->home->in[USE_SERVED]) {
        log_error("request of %zu bytes from rank %d, which the plan does not foresee", a->size, a->from);
        return ST_FORMAT;
    }
    log_sender(a->from);
    status st = wire_request_decode(a->data, a->size, &r->limits, &s->copy, &q);
    log_sender(-1);
    if (!st && q.form == FORM_Q8 && device_reads_floats(devices_options(r->devices), q.part, (int)q.layer)) {
        log_error("layer %u of rank %d came quantised, its weights are not", q.layer, a->from);
        st = ST_FORMAT;
    }
    if (st)
        return st;
    struct work w = {.part = q.part, .layer = (int)q.layer, .n = q.n_tokens};
    const struct input_bytes x = {.codes = q.codes, .scale = q.scale, .f32 = q.f32, .residual = q.residual,
                                  .expert = q.expert, .weight = q.weight};
    r->home->ops->import_input(r->home, &w, &x, r->home->in[USE_SERVED]);
    expect_tokens(r, q.n_tokens);
    return w.part == DEVICE_OUTPUT ? reply_logits(s, a, &q, &w) : reply_layer(s, a, &q, &w);
}

/* Tells the sender of a request that it gets no answer, and rank 0, which ends the run then; this rank goes on. Who has
 * not taken an earlier refusal is told nothing more. */
static status refuse(struct answers *s, struct arrival *a, const char *why)
{
    struct exchange *e = s->r->exchange;
    struct multicast *m = &s->refusal;
    char reason[WIRE_FAILED_MAX];
    bool taken = true;
    status st = exchange_release(e, a);
    if (!st)
        st = multicast_sent(e, m, &taken);
    if (st || !taken)
        return st;
    snprintf(reason, sizeof reason, "refused a request of rank %d: %.200s", a->from, why);
    const size_t size = wire_failed_encode(reason, m->buffer, m->capacity);
    st = multicast_send(e, m, a->from, WIRE_FAILED, size);
    return st || a->from == 0 ? st : multicast_send(e, m, 0, WIRE_FAILED, size);
}

status answers_serve(void *arg, struct arrival *a)
{
    struct answers *s = arg;
    struct log_catcher caught;
    if (s->r->rank == 0) /* it ends the run itself */
        return answer(s, a);
    log_catch(&caught);
    status st = answer(s, a);
    log_catch(NULL);
    if (st == ST_FORMAT)
        return refuse(s, a, caught.first_error);
    if (st)
        log_error("%s", caught.first_error);
    return st;
}
