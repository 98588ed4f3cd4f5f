#include "worker/worker.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "worker/internal.h"

struct wire_limits worker_limits(const struct worker_options *o)
{
    return (struct wire_limits){.n_batch = o->n_batch,
                                .n_ctx = o->n_ctx,
                                .n_vocab = (uint32_t)o->model->hp.n_vocab,
                                .n_layers = (uint32_t)o->model->hp.n_layers,
                                .d_model = (uint32_t)o->model->hp.d_model,
                                .residual = mlp_reads_residual(o)};
}

/* Frees what worker_lay_out took from the heap. */
static void free_tables(struct worker *w)
{
    free(w->stage.layers);
    free(w->scratch);
    free(w->rope_freq);
    free(w->stage.request.sends); /* all multicasts' */
    free(w->stage.ahead);
    free(w->stage.sets);
    free(w->stage.downs);
    free(w->live);
    free(w->replies);
    free(w->heads);
    free(w->shards);
    free(w->rooms);
}

static struct worker describe(const struct worker_options *o, int rank)
{
    return (struct worker){.o = *o, .rank = rank, .n_ranks = o->plan->n_ranks, .limits = worker_limits(o)};
}

/* What the file may hold and the reader accepts, but no worker runs yet. */
static status check_runs(const struct model *m)
{
    if (m->hp.head_dim > MOST_HEAD_DIM) {
        log_error("%s: heads have %lld values; at most %d can run", gguf_path(m->file), (long long)m->hp.head_dim,
                  MOST_HEAD_DIM);
        return ST_UNSUPPORTED;
    }
    return ST_OK;
}

status worker_memory(const struct worker_options *o, int rank, struct worker_memory *out)
{
    struct worker w = describe(o, rank);
    status st = check_runs(o->model);
    if (st)
        return st;
    arena_dry(&w.arena);
    st = worker_lay_out(&w);
    if (!st)
        *out = (struct worker_memory){.weights = w.weight_bytes,
                                      .kv = w.kv_bytes,
                                      .buffers = w.arena.used - w.weight_bytes - w.kv_bytes,
                                      .total = w.arena.used};
    free_tables(&w);
    return st;
}

/* Shows the transport where messages come from, and lends it what it puts long ones together in. */
static status furnish(struct worker *w)
{
    struct transport *t = w->o.transport;
    const size_t buffers = w->weight_bytes + w->kv_bytes; /* behind these, which are large and never sent */
    status st = transport_register(t, w->arena.base + buffers, w->arena.used - buffers);
    for (int i = 0; i < w->n_rooms && !st; i++)
        st = transport_lend(t, w->rooms[i].from, w->rooms[i].channel, w->rooms[i].memory, w->rooms[i].bytes);
    return st;
}

status worker_create(const struct worker_options *o, struct worker **out)
{
    struct worker_memory need;
    struct worker *w = NULL;
    status st = worker_memory(o, o->transport->rank, &need);
    if (st)
        return st;
    w = malloc(sizeof *w);
    if (!w) {
        log_error("out of memory for a worker");
        return ST_NOMEM;
    }
    *w = describe(o, o->transport->rank);
    if ((st = arena_map(&w->arena, need.total)) || (st = worker_lay_out(w)) ||
        (st = furnish(w)) || (st = pool_create(o->n_threads, &w->pool)))
        goto err;
    pool_between(w->pool, move_messages, w);
    if ((st = worker_load(w)))
        goto err;
    *out = w;
    return ST_OK;
err:
    worker_free(w);
    return st;
}

void worker_free(struct worker *w)
{
    if (!w)
        return;
    pool_destroy(w->pool);
    free_tables(w);
    arena_unmap(&w->arena);
    free(w);
}

struct pool *worker_pool(const struct worker *w) { return w->pool; }

static status take_sampling(struct worker *w, struct arrival *a)
{
    struct wire_sampling s;
    if (!w->stage.is_last || a->from != 0) {
        log_error("sampling parameters of %zu bytes from rank %d, which the plan does not foresee", a->size, a->from);
        return ST_FORMAT;
    }
    log_sender(a->from);
    status st = wire_sampling_decode(a->data, a->size, &s);
    log_sender(-1);
    if (!st)
        st = transport_release(w->o.transport, a);
    if (st)
        return st;
    w->stage.sampler.params = (struct sampler_params){.temperature = s.temperature,
                                                      .top_k = s.top_k,
                                                      .top_p = s.top_p,
                                                      .min_p = s.min_p,
                                                      .repeat_penalty = s.repeat_penalty,
                                                      .presence_penalty = s.presence_penalty,
                                                      .frequency_penalty = s.frequency_penalty,
                                                      .repeat_last = s.repeat_last,
                                                      .seed = s.seed};
    return head_acknowledge(w);
}

/* What this rank has sent, this answer excepted, and how its time went. */
static status answer_query(struct worker *w, struct arrival *a)
{
    if (a->size || a->from != 0) {
        log_error("QUERY of %zu bytes from rank %d, expected none from rank 0", a->size, a->from);
        return ST_FORMAT;
    }
    status st = transport_release(w->o.transport, a);
    if (!st)
        st = outbox_wait(w, &w->usage_reply);
    if (st)
        return st;
    if (w->o.plan->residual_all && w->rank != plan_last_stage(w->o.plan)) /* all run the same steps: one says how */
        w->usage.run_ns = w->usage.wire_ns = w->usage.wait_ns = 0;
    w->usage.messages = w->o.transport->counts.messages;
    w->usage.bytes = w->o.transport->counts.bytes;
    size_t size = wire_usage_encode(&w->usage, w->usage_reply.buffer, w->usage_reply.capacity);
    return outbox_send(w, &w->usage_reply, 0, WIRE_USAGE, size);
}

/* Whether the coordinator, who runs on this rank's thread, has yet to take a result: no step may begin then, for it
 * would wait within for what can be taken only when it is over. */
static bool owes_result(const struct worker *w)
{
    return w->rank == 0 && w->stage.is_last &&
           !atomic_load_explicit(&w->stage.result.send.done, memory_order_acquire);
}

status worker_poll(struct worker *w, bool *handled, bool *stopped)
{
    const uint32_t steps = owes_result(w) ? 0 : 1u << WIRE_STEP | 1u << WIRE_HIDDEN;
    const uint32_t kinds = steps | 1u << WIRE_SAMPLING | 1u << WIRE_QUERY | 1u << WIRE_STOP;
    struct arrival a;
    *handled = *stopped = false;
    status st = serve_or_find(w, kinds, &a, handled);
    if (st || !*handled)
        return st;
    switch (a.kind) {
    case WIRE_SAMPLING: return take_sampling(w, &a);
    case WIRE_QUERY: return answer_query(w, &a);
    case WIRE_STOP:
        if (a.size || a.from != 0) {
            log_error("STOP of %zu bytes from rank %d, expected none, from rank 0", a.size, a.from);
            return ST_FORMAT;
        }
        *stopped = true;
        st = transport_release(w->o.transport, &a);
        return st ? st : worker_settle(w);
    default: return stage_run(w, &a);
    }
}

status worker_settle(struct worker *w)
{
    status st = multicast_wait(w, &w->stage.step);
    for (int i = 0; i < STAGE_BUFFERS && !st; i++)
        st = multicast_wait(w, &w->stage.shared[i]);
    return st;
}

status worker_run(struct worker *w)
{
    for (;;) {
        bool handled, stopped;
        status st = worker_poll(w, &handled, &stopped);
        if (st || stopped)
            return st;
        if (!handled)
            be_idle(w->o.transport, &w->polls);
    }
}
