/* An owner's work for whoever asks: its heads' part of a layer's attention, its neurons' of an FFN, or its rows of the
 * output matrix. */
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "worker/internal.h"

void shard_compute(struct worker *w, int layer, const struct acts *x, const struct acts *residual, uint32_t n,
                   double *sum)
{
    shard_fire(w, layer, x, residual, n);
    down_project(w, &w->shards[layer].down, n, sum);
    relay_shard(w, layer);
}

struct product {
    struct worker *w;
    const struct acts *x;
    uint32_t n;
    float *logits;     /* [n, stride], from the first own row on */
    int64_t stride;
};

static void multiply_rows(void *arg, int64_t begin, int64_t end, int thread)
{
    struct product *p = arg;
    (void)thread;
    p->w->o.kernels->matmul(&p->w->rows.weights, begin, end, p->x, p->n, p->logits, p->stride);
}

void rows_compute(struct worker *w, const struct acts *x, uint32_t n, float *logits, int64_t stride)
{
    struct product p = {w, x, n, logits, stride};
    const int64_t groups = w->rows.weights.groups;
    pool_for(w->pool, groups, group_grain(w, groups), multiply_rows, &p);
    w->counts.bytes += packed_bytes(&w->rows.weights);
}

/* x of a request as kernels read it. */
static void take_x(struct worker *w, const struct wire_request *q, struct acts *x)
{
    const int64_t n = q->n_tokens, d = w->request.cols;
    *x = w->request;
    if (q->form == FORM_F32) {
        x->f32 = q->f32;
        if (readers_of(w, x_of(q->part), (int)q->layer).q8)
            w->o.kernels->quantize(x, 0, n);
        return;
    }
    x->codes = q->codes;
    for (int64_t i = 0; i < n * d / ACT_BLOCK; i++)
        x->blocks[i].scale = q->scale[i];
    w->o.kernels->sum_blocks(x, 0, n);
}

const struct acts *take_residual(struct worker *w, int layer, const float *residual, uint32_t n)
{
    if (!w->limits.residual)
        return NULL;
    memcpy(w->residual.f32, residual, (size_t)(n * w->residual.cols) * sizeof(float));
    if (readers_of(w, RESIDUAL, layer).q8)
        w->o.kernels->quantize(&w->residual, 0, n);
    return &w->residual;
}

/* Makes the outbox for answers to rank `to` ready. Its last answer has arrived, or the stage would not have asked
 * again: the transport need only notice. Nothing is served meanwhile, for x lies in w->request. */
static status open_reply(struct worker *w, struct outbox *box, const struct wire_request *q, int to)
{
    if (!box->buffer) {
        log_error("request of layer %u from rank %d, which the plan does not foresee", q->layer, to);
        return ST_FORMAT;
    }
    enum { MOST_S = 2 };
    const double deadline = clock_s() + MOST_S;
    bool done = false;
    status st = transport_sent(w->o.transport, &box->send, &done);
    while (!st && !done && clock_s() < deadline) {
        sched_yield();
        st = transport_sent(w->o.transport, &box->send, &done);
    }
    if (!st && !done) {
        log_error("rank %d asks for layer %u without having taken the answer before", to, q->layer);
        st = ST_PEER;
    }
    return st;
}

/* Sends an answer. The request has been read: its place is the transport's again, before the stage can ask anew. */
static status reply(struct worker *w, struct arrival *a, struct outbox *box, int kind, size_t size)
{
    status st = transport_release(w->o.transport, a);
    return st ? st : outbox_send(w, box, a->from, kind, size);
}

static status reply_partial(struct worker *w, struct arrival *a, const struct wire_request *q, const struct acts *x)
{
    struct outbox *box = &w->replies[a->from];
    struct wire_partial p = {.id = q->id, .part = q->part, .layer = q->layer, .n_tokens = q->n_tokens};
    if (q->part == PART_ATTENTION)
        attention_compute(w, (int)q->layer, x, q->position, q->n_tokens, w->sum);
    else
        shard_compute(w, (int)q->layer, x, take_residual(w, (int)q->layer, q->residual, q->n_tokens), q->n_tokens,
                      w->sum);
    p.counts = take_counts(w);
    wire_partial_place(&p, &w->limits, box->buffer);
    sums_pack(w, w->sum, &p);
    p.busy_ns = clock_ns() - w->served_ns;
    return reply(w, a, box, WIRE_PARTIAL, wire_partial_encode(&p, &w->limits, box->buffer, box->capacity));
}

/* Own neurons whose activation is not zero: pairs (index, value), token by token; without arrays they are counted. */
static uint32_t list_active(const struct worker *w, const struct neuron_set *set, uint32_t n, struct wire_active *a)
{
    uint32_t pairs = 0;
    for (uint32_t t = 0; t < n; t++) {
        const float *h = w->activated.f32 + t * w->activated.cols;
        if (a)
            a->first[t] = pairs;
        for (int64_t i = 0; i < set->n; i++) {
            const float value = h[set->slot[i]];
            if (a && value != 0) {
                a->index[pairs] = (uint32_t)i;
                a->value[pairs] = value;
            }
            pairs += value != 0;
        }
    }
    if (a)
        a->first[n] = pairs;
    return pairs;
}

/* The stage has the down projection: it gets the live activations. */
static status reply_active(struct worker *w, struct arrival *a, const struct wire_request *q, const struct acts *x)
{
    struct outbox *box = &w->replies[a->from];
    const struct neuron_set *set = &w->shards[q->layer].set;
    struct wire_active live = {.id = q->id, .layer = q->layer, .n_tokens = q->n_tokens};
    shard_fire(w, (int)q->layer, x, take_residual(w, (int)q->layer, q->residual, q->n_tokens), q->n_tokens);
    live.counts = take_counts(w);
    live.busy_ns = clock_ns() - w->served_ns;
    live.n_pairs = list_active(w, set, q->n_tokens, NULL);
    size_t size = wire_active_encode(&live, &w->limits, box->buffer, box->capacity);
    list_active(w, set, q->n_tokens, &live);
    relay_shard(w, (int)q->layer);
    return reply(w, a, box, WIRE_ACTIVE, size);
}

/* A request for a layer's heads or neurons. Heads have had all tokens before the request's: no more than the stage that
 * asks has run. */
static status reply_layer(struct worker *w, struct arrival *a, const struct wire_request *q, const struct acts *x)
{
    const bool attention = q->part == PART_ATTENTION;
    status st = open_reply(w, &w->replies[a->from], q, a->from);
    if (st)
        return st;
    if (!owner_of(w, q->part, (int)q->layer, w->rank) || w->o.plan->layers[q->layer].stage != a->from) {
        log_error("request of layer %u from rank %d, which is not its stage or of which this rank holds no %s", q->layer,
                  a->from, attention ? "head" : "neuron");
        return ST_FORMAT;
    }
    if (attention && q->position > w->heads[q->layer].length) {
        log_error("request of layer %u at position %u from rank %d, but the KV cache holds %u tokens", q->layer,
                  q->position, a->from, w->heads[q->layer].length);
        return ST_FORMAT;
    }
    return (!attention && plan_down_at_stage(w->o.plan, (int)q->layer) ? reply_active : reply_partial)(w, a, q, x);
}

/* What it has of n tokens' logits goes into the outbox. *size: of the message; 0 if it does not fit. */
static void fill_logits(struct worker *w, uint64_t step, const struct acts *x, uint32_t n, size_t *size)
{
    struct outbox *box = &w->logits_reply;
    struct wire_logits l = {.id = step, .n_tokens = n, .n_rows = (uint32_t)(w->rows.end - w->rows.begin)};
    *size = wire_logits_encode(&l, &w->limits, box->buffer, box->capacity); /* where the values go */
    if (!*size)
        return;
    rows_compute(w, x, n, l.values, l.n_rows);
    l.counts = take_counts(w);
    l.busy_ns = clock_ns() - w->served_ns;
    wire_logits_encode(&l, &w->limits, box->buffer, box->capacity);
}

static status reply_logits(struct worker *w, struct arrival *a, const struct wire_request *q, const struct acts *x)
{
    size_t size = 0;
    status st = open_reply(w, &w->logits_reply, q, a->from);
    if (st)
        return st;
    if (a->from == plan_last_stage(w->o.plan))
        fill_logits(w, q->id, x, q->n_tokens, &size);
    if (!size) {
        log_error("request of the logits of %u tokens from rank %d, expected at most %d from rank %d", q->n_tokens,
                  a->from, WIRE_LOGIT_TOKENS, plan_last_stage(w->o.plan));
        return ST_FORMAT;
    }
    return reply(w, a, &w->logits_reply, WIRE_LOGITS, size);
}

status logits_send(struct worker *w, uint64_t step, const struct acts *x, uint32_t n)
{
    size_t size;
    status st = outbox_wait(w, &w->logits_reply);
    if (st)
        return st;
    w->served_ns = clock_ns();
    fill_logits(w, step, x, n, &size);
    return outbox_send(w, &w->logits_reply, plan_last_stage(w->o.plan), WIRE_LOGITS, size);
}

static status answer(struct worker *w, struct arrival *a)
{
    struct wire_request q;
    struct acts x;
    w->served_ns = clock_ns();
    if (!w->request.f32) {
        log_error("request of %zu bytes from rank %d, which the plan does not foresee", a->size, a->from);
        return ST_FORMAT;
    }
    log_sender(a->from);
    status st = wire_request_decode(a->data, a->size, &w->limits, &q);
    log_sender(-1);
    if (!st && q.form == FORM_Q8 && readers_of(w, x_of(q.part), (int)q.layer).f32) {
        log_error("layer %u of rank %d came quantised, its weights are not", q.layer, a->from);
        st = ST_FORMAT;
    }
    if (st)
        return st;
    take_x(w, &q, &x);
    keep_moving(w, q.n_tokens);
    return q.part == PART_OUTPUT ? reply_logits(w, a, &q, &x) : reply_layer(w, a, &q, &x);
}

/* Tells the sender of a request that it gets no answer, and rank 0, which ends the run then; this rank goes on. Who has
 * not taken an earlier refusal is told nothing more. */
static status refuse(struct worker *w, struct arrival *a, const char *why)
{
    struct multicast *m = &w->refusal;
    char reason[WIRE_FAILED_MAX];
    bool taken = true;
    status st = transport_release(w->o.transport, a);
    for (int r = 0; r < w->n_ranks && !st && taken; r++)
        if (!atomic_load_explicit(&m->sends[r].done, memory_order_acquire))
            st = transport_sent(w->o.transport, &m->sends[r], &taken);
    if (st || !taken)
        return st;
    snprintf(reason, sizeof reason, "refused a request of rank %d: %.200s", a->from, why);
    const size_t size = wire_failed_encode(reason, m->buffer, m->capacity);
    st = multicast_send(w, m, a->from, WIRE_FAILED, size);
    return st || a->from == 0 ? st : multicast_send(w, m, 0, WIRE_FAILED, size);
}

status shard_serve(struct worker *w, struct arrival *a)
{
    struct log_catcher caught;
    if (w->rank == 0) /* it ends the run itself */
        return answer(w, a);
    log_catch(&caught);
    status st = answer(w, a);
    log_catch(NULL);
    if (st == ST_FORMAT)
        return refuse(w, a, caught.first_error);
    if (st)
        log_error("%s", caught.first_error);
    return st;
}
