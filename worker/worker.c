#include "worker/worker.h"

#include <stdlib.h>

#include "base/log.h"
#include "base/threads.h"
#include "worker/stage.h"

struct worker {
    struct worker_options o;
    struct rank r;
    struct pool *pool;
    struct batches *batches;
    struct owners *owners;
    struct answers *answers;
    struct head *head;
    struct stage *stage;
    struct outbox usage_reply;
};

struct wire_limits worker_limits(const struct worker_options *o)
{
    const struct device_shape s = device_shape(o->model);
    const struct device_options modes = {.model = o->model, .neurons = o->neurons, .sparse = o->sparse,
                                         .predictor = o->predictor};
    return (struct wire_limits){.n_batch = o->n_batch,
                                .n_ctx = o->n_ctx,
                                .n_sequences = o->n_sequences,
                                .n_pages = o->n_pages,
                                .n_runs = o->n_sequences,
                                .n_grammar_ops = o->n_grammar_ops,
                                .n_states = device_states(o->model, o->n_sequences),
                                .n_vocab = (uint32_t)s.n_vocab,
                                .n_layers = (uint32_t)s.n_layers,
                                .d_model = (uint32_t)s.d_model,
                                .n_experts = (uint32_t)s.n_experts,
                                .n_experts_used = (uint32_t)s.n_experts_used,
                                .n_weights = (uint32_t)s.n_weights,
                                .n_dense_layers = (uint32_t)s.n_dense_layers,
                                .residual = device_reads_residual(&modes)};
}

/* ---- memory ---- */

static void free_objects(struct worker *w)
{
    stage_free(w->stage);
    head_free(w->head);
    answers_free(w->answers);
    owners_free(w->owners);
    batches_free(w->batches);
    devices_free(w->r.devices);
    exchange_free(w->r.exchange);
    arena_unmap(&w->r.arena);
}

static status make_objects(struct worker *w, const struct worker_options *o, int rank)
{
    struct rank *r = &w->r;
    w->o = *o;
    *r = (struct rank){.o = &w->o, .rank = rank, .n_ranks = o->plan->n_ranks, .limits = worker_limits(o),
                       .shape = device_shape(o->model)};
    status st = exchange_new(o->transport, r->n_ranks, &r->exchange);
    st = st ? st : devices_new(&w->o, rank, &r->devices);
    st = st ? st : batches_new(r, &w->batches);
    st = st ? st : owners_new(r, &w->owners);
    st = st ? st : answers_new(r, w->batches, &w->answers);
    st = st ? st : head_new(r, w->owners, w->answers, &w->head);
    return st ? st : stage_new(r, w->owners, w->head, w->batches, &w->stage);
}

/* Hands out every array of messages; the same code on a dry arena counts. */
static status lay_out(struct worker *w)
{
    batches_lay(w->batches);
    status st = stage_lay(w->stage);
    head_lay(w->head);
    st = st ? st : owners_lay(w->owners);
    st = st ? st : answers_lay(w->answers);
    outbox_lay(&w->r.arena, &w->usage_reply, WIRE_USAGE_MAX);
    return st;
}

status worker_memory(const struct worker_options *o, int holder, struct worker_memory *out)
{
    struct worker w = {0};
    struct device_memory device;
    status st = make_objects(&w, o, plan_holder_rank(o->plan, holder));
    st = st ? st : devices_need(w.r.devices, holder, &device);
    st = st || holder >= o->plan->n_ranks ? st : lay_out(&w);
    if (!st)
        *out = (struct worker_memory){.weights = device.weights,
                                      .kv = device.kv,
                                      .states = device.states,
                                      .buffers = device.buffers + w.r.arena.used,
                                      .total = device.total + w.r.arena.used};
    free_objects(&w);
    return st;
}

status worker_check_devices(const struct worker_options *o, int rank)
{
    struct devices *d;
    status st = devices_new(o, rank, &d);
    if (st)
        return st;
    st = devices_check(d);
    devices_free(d);
    return st;
}

/* Takes the memory of messages, which is shown to the transport: they are sent from there. */
static status take_memory(struct worker *w)
{
    status st = lay_out(w); /* dry */
    const size_t bytes = w->r.arena.used;
    st = st ? st : arena_map(&w->r.arena, bytes);
    st = st ? st : transport_register(w->o.transport, w->r.arena.base, bytes);
    return st ? st : lay_out(w);
}

static status start(struct worker *w)
{
    status st = take_memory(w);
    st = st ? st : pool_create(w->o.n_threads, &w->pool);
    if (st)
        return st;
    pool_between(w->pool, move_messages, w->r.exchange);
    st = devices_open(w->r.devices, w->pool);
    if (st)
        return st;
    w->r.home = devices_home(w->r.devices);
    exchange_serves(w->r.exchange, answers_serve, w->answers);
    st = stage_open(w->stage);
    return st ? st : devices_load(w->r.devices);
}

status worker_create(const struct worker_options *o, struct worker **out)
{
    struct worker *w = calloc(1, sizeof *w);
    if (!w) {
        log_error("out of memory for a worker");
        return ST_NOMEM;
    }
    status st = make_objects(w, o, o->transport->rank);
    st = st ? st : start(w);
    if (st) {
        worker_free(w);
        return st;
    }
    *out = w;
    return ST_OK;
}

void worker_free(struct worker *w)
{
    if (!w)
        return;
    pool_destroy(w->pool);
    free_objects(w);
    free(w);
}

struct pool *worker_pool(const struct worker *w) { return w->pool; }

/* ---- messages ---- */

/* What this rank has sent, this answer excepted, and how its time and its devices' went. */
static status answer_query(struct worker *w, struct arrival *a)
{
    if (a->size || a->from != 0) {
        log_error("QUERY of %zu bytes from rank %d, expected none from rank 0", a->size, a->from);
        return ST_FORMAT;
    }
    status st = exchange_release(w->r.exchange, a);
    if (!st)
        st = outbox_wait(w->r.exchange, &w->usage_reply);
    if (st)
        return st;
    if (w->o.plan->residual_all && w->r.rank != plan_last_stage(w->o.plan)) /* all run the same steps: one says how */
        w->r.usage.run_ns = w->r.usage.wire_ns = w->r.usage.wait_ns = 0;
    w->r.usage.messages = w->o.transport->counts.messages;
    w->r.usage.bytes = w->o.transport->counts.bytes;
    w->r.usage.n_devices = devices_spent(w->r.devices, w->r.usage.devices);
    size_t size = wire_usage_encode(&w->r.usage, w->usage_reply.buffer, w->usage_reply.capacity);
    return outbox_send(w->r.exchange, &w->usage_reply, 0, WIRE_USAGE, size);
}

status worker_poll(struct worker *w, bool *handled, bool *stopped)
{
    const uint32_t control = 1u << WIRE_QUERY | 1u << WIRE_STOP;
    struct arrival a;
    bool ready;
    *handled = *stopped = false;
    status st = stage_ready(w->stage, &ready);
    st = st ? st
            : serve_or_find(w->r.exchange, control | (ready ? 1u << WIRE_STEP | 1u << WIRE_HIDDEN : 0), &a, handled);
    if (st || !*handled)
        return st;
    switch (a.kind) {
    case WIRE_QUERY: return answer_query(w, &a);
    case WIRE_STOP:
        if (a.size || a.from != 0) {
            log_error("STOP of %zu bytes from rank %d, expected none, from rank 0", a.size, a.from);
            return ST_FORMAT;
        }
        *stopped = true;
        st = exchange_release(w->r.exchange, &a);
        return st ? st : worker_settle(w);
    default: return stage_run(w->stage, &a);
    }
}

status worker_settle(struct worker *w) { return stage_settle(w->stage); }

status worker_run(struct worker *w)
{
    for (;;) {
        bool handled, stopped;
        status st = worker_poll(w, &handled, &stopped);
        if (st || stopped)
            return st;
        if (!handled)
            exchange_idle(w->r.exchange);
    }
}
