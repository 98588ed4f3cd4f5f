/* An owner's work: its neurons' part of one layer's FFN, down(silu(gate x) * up x) (Shazeer, GLU Variants, 2020), and
 * its rows of the output matrix. */
#include <sched.h>

#include "base/clock.h"
#include "base/log.h"
#include "worker/internal.h"

struct part {
    struct worker *w;
    const struct shard *s;
    const struct acts *x;
    struct acts h;     /* [n, own neurons], a view of w->activated */
    uint32_t n;
    bool quantise;     /* the down projection reads quantised activations */
    double *sum;       /* [n, d] */
};

/* Gate and up of some groups of neurons; what they activate is quantised at once, by the thread that has it in
 * cache. */
static void activate_groups(void *arg, int64_t begin, int64_t end, int thread)
{
    struct part *p = arg;
    const struct kernels *k = p->w->o.kernels;
    const int64_t own = p->s->end - p->s->begin;
    (void)thread;
    begin *= 2; /* pieces are pairs of groups: whole blocks of 32 neurons */
    end = 2 * end < p->s->gate.groups ? 2 * end : p->s->gate.groups;
    const int64_t r0 = begin * ROW_GROUP, r1 = end * ROW_GROUP < own ? end * ROW_GROUP : own;
    k->matmul(&p->s->gate, begin, end, p->x, p->n, p->w->gate, own);
    k->matmul(&p->s->up, begin, end, p->x, p->n, p->w->up, own);
    for (int64_t t = 0; t < p->n; t++) {
        struct acts h = acts_slice(&p->h, t, r0, r1 - r0);
        k->activate(ACT_SILU, p->w->gate + t * own + r0, p->w->up + t * own + r0, r1 - r0, h.f32);
        if (p->quantise)
            k->quantize(&h, 0, 1);
    }
}

static void project_down(void *arg, int64_t begin, int64_t end, int thread)
{
    struct part *p = arg;
    (void)thread;
    p->w->o.kernels->matmul_partial(&p->s->down, begin, end, &p->h, p->n, p->sum, p->s->down.rows);
}

void shard_compute(struct worker *w, int layer, const struct acts *x, uint32_t n, double *sum)
{
    const struct shard *s = &w->shards[layer];
    struct part p = {.w = w, .s = s, .x = x, .h = w->activated, .n = n, .sum = sum};
    int64_t pairs = (s->gate.groups + 1) / 2;
    p.h.cols = s->end - s->begin;
    p.quantise = dtype_is_quantised(s->down.type);
    pool_for(w->pool, pairs, (group_grain(w, s->gate.groups) + 1) / 2, activate_groups, &p);
    pool_for(w->pool, s->down.groups, group_grain(w, s->down.groups), project_down, &p);
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
}

/* x of a request as kernels read it. */
static void take_x(struct worker *w, const struct wire_ffn *f, struct acts *x)
{
    const int64_t n = f->n_tokens, d = w->request.cols;
    *x = w->request;
    if (f->form == FORM_F32) {
        x->f32 = f->f32;
        if (owners_want_q8(w, (int)f->layer))
            w->o.kernels->quantize(x, 0, n);
        return;
    }
    x->codes = f->codes;
    for (int64_t i = 0; i < n * d / ACT_BLOCK; i++)
        x->blocks[i].scale = f->scale[i];
    w->o.kernels->sum_blocks(x, 0, n);
}

/* Makes the outbox for answers to rank `to` ready. Its last answer has arrived, or the stage would not have asked
 * again: the transport need only notice. Nothing is served meanwhile, for x lies in w->request. */
static status open_reply(struct worker *w, struct outbox *reply, const struct wire_ffn *f, int to)
{
    if (!reply->buffer) {
        log_error("rank %d: request of layer %u from rank %d, which the plan does not foresee", w->rank, f->layer, to);
        return ST_FORMAT;
    }
    enum { MOST_S = 2 };
    const double deadline = clock_s() + MOST_S;
    bool done = false;
    status st = transport_sent(w->o.transport, &reply->send, &done);
    while (!st && !done && clock_s() < deadline) {
        sched_yield();
        st = transport_sent(w->o.transport, &reply->send, &done);
    }
    if (!st && !done) {
        log_error("rank %d: rank %d asks for layer %u without having taken the answer before", w->rank, to, f->layer);
        st = ST_PEER;
    }
    return st;
}

static status reply_partial(struct worker *w, int to, const struct wire_ffn *f, const struct acts *x)
{
    struct outbox *reply = &w->replies[to];
    struct wire_partial p = {.id = f->id, .layer = f->layer, .n_tokens = f->n_tokens};
    status st = open_reply(w, reply, f, to);
    if (st)
        return st;
    size_t size = wire_partial_encode(&p, &w->limits, reply->buffer, reply->capacity);
    if (!owner_of(w, (int)f->layer, w->rank)) {
        log_error("rank %d: request of layer %u from rank %d, of which it holds no neuron", w->rank, f->layer, to);
        return ST_FORMAT;
    }
    shard_compute(w, (int)f->layer, x, f->n_tokens, p.sum);
    return outbox_send(w, reply, to, WIRE_PARTIAL, size);
}

static status reply_logits(struct worker *w, int to, const struct wire_ffn *f, const struct acts *x)
{
    struct outbox *reply = &w->logits_reply;
    struct wire_logits l = {.id = f->id, .n_tokens = f->n_tokens, .n_rows = (uint32_t)(w->rows.end - w->rows.begin)};
    status st = open_reply(w, reply, f, to);
    if (st)
        return st;
    size_t size = wire_logits_encode(&l, &w->limits, reply->buffer, reply->capacity);
    if (!size || to != plan_last_stage(w->o.plan)) {
        log_error("rank %d: request of the logits of %u tokens from rank %d, expected at most %d from rank %d", w->rank,
                  f->n_tokens, to, WIRE_LOGIT_TOKENS, plan_last_stage(w->o.plan));
        return ST_FORMAT;
    }
    rows_compute(w, x, f->n_tokens, l.values, l.n_rows);
    return outbox_send(w, reply, to, WIRE_LOGITS, size);
}

status shard_serve(struct worker *w, struct arrival *a)
{
    struct wire_ffn f;
    struct acts x;
    if (!w->request_buffer || a->size > wire_ffn_max(&w->limits)) {
        log_error("rank %d: FFN request of %zu bytes from rank %d, which the plan does not foresee", w->rank, a->size,
                  a->from);
        return ST_FORMAT;
    }
    status st = transport_receive(w->o.transport, a, w->request_buffer);
    if (!st)
        st = wire_ffn_decode(w->request_buffer, a->size, &w->limits, &f);
    if (!st && f.form == FORM_Q8 && owners_want_f32(w, (int)f.layer)) {
        log_error("rank %d: layer %u of rank %d came quantised, its weights are not", w->rank, f.layer, a->from);
        st = ST_FORMAT;
    }
    if (st)
        return st;
    take_x(w, &f, &x);
    return f.layer == w->limits.n_layers ? reply_logits(w, a->from, &f, &x) : reply_partial(w, a->from, &f, &x);
}
