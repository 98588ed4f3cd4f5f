#include "cli/cluster.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/log.h"
#include "base/machine.h"
#include "base/threads.h"
#include "cli/cache.h"
#include "cli/launch.h"
#include "cli/planning.h"
#include "coordinator/roll_call.h"
#include "coordinator/session.h"
#include "model/tokenizer.h"
#include "wire/channels.h"
#include "worker/worker.h"

/* What one rank of this process has. */
struct member {
    const struct cluster_options *o;
    struct transport *transport;
    struct model *model;
    struct neurons *neurons;
    char *cache;              /* folder; NULL: none */
    struct chunks *chunks;    /* of the model's file; NULL: not compared, or no more */
    struct plan *plan;
    struct plan_reasons reasons;
    const struct kernels *kernels;
    struct worker_options worker_options;
    struct worker *worker;
    struct wire_hello hello;
    struct log_catcher errors; /* ranks > 0 are silent: rank 0 says what went wrong, once */
    pthread_t thread;
};

struct cluster {
    struct cluster_options o;
    struct member own;               /* rank 0 */
    struct member *others;           /* in-process ranks 1 .. n - 1; NULL under mpirun */
    int n_others;                    /* threads that run */
    struct tokenizer *tokenizer;
    struct session *session;
};

static double gib(uint64_t bytes) { return (double)bytes / (1 << 30); }

static void describe_host(struct wire_host *h)
{
    struct machine m;
    machine_read("", &m);
    if (gethostname(h->name, sizeof h->name - 1) != 0)
        snprintf(h->name, sizeof h->name, "unknown");
    h->id = m.id;
    h->memory_bytes = m.memory_bytes;
    h->limit_id = m.limit_id;
    h->limit_bytes = m.limit_bytes;
}

/* Checks what this rank alone will need, before anything is loaded; what the ranks of a host need together is added up
 * at the roll call. */
static status check_memory(struct member *m)
{
    struct worker_memory need;
    status st = worker_memory(&m->worker_options, m->transport->rank, &need);
    if (st)
        return st;
    need.buffers += m->transport->slot_bytes;
    need.total += m->transport->slot_bytes;
    m->hello.need_bytes = need.total;
    const struct wire_host *host = &m->hello.host;
    const bool budgeted = m->o->ram_budget && m->o->ram_budget < host->limit_bytes;
    const uint64_t limit = budgeted ? m->o->ram_budget : host->limit_bytes;
    if (need.total <= limit)
        return ST_OK;
    log_error("%.2f GiB of memory needed (weights %.2f, KV cache of %u tokens %.2f, buffers %.2f), %s %.2f: give the "
              "rank a smaller share (--shares, --plan), more ranks, or a shorter context (-c)", gib(need.total),
              gib(need.weights), m->worker_options.n_ctx, gib(need.kv), gib(need.buffers),
              budgeted ? "the budget is" : host->limit_id ? "the cgroup's limit is" : "the machine has", gib(limit));
    return ST_BUDGET;
}

static status hash_plan(const struct plan *p, uint64_t *hash)
{
    char *text = plan_format(p);
    if (!text) {
        log_error("out of memory for the plan's text");
        return ST_NOMEM;
    }
    *hash = XXH3_64bits(text, strlen(text));
    free(text);
    return ST_OK;
}

/* What ranks must agree in beside model and plan, as one line of text. */
static void describe_settings(struct member *m)
{
    const struct worker_options *w = &m->worker_options;
    const bool lossy = w->sparse == SPARSE_PREDICTED || w->sparse == SPARSE_THRESHOLD; /* others need no neuron file */
    snprintf(m->hello.settings, sizeof m->hello.settings,
             "activation %s, sparse %s, predictor %s, skip %g, neurons %016llx, sums %s",
             activation_name(m->model->hp.activation), sparse_mode_name(w->sparse), predictor_name(w->predictor),
             (double)w->skip_share, m->neurons && lossy ? (unsigned long long)gguf_hash(m->neurons->file) : 0ull,
             w->sums_f16 ? "f16" : "exact");
    m->hello.settings_hash = XXH3_64bits(m->hello.settings, strlen(m->hello.settings));
}

/* Ranks that are processes each have a copy of the model: what they load from it will be compared. */
static status know_chunks(struct member *m)
{
    if (m->o->no_verify || m->transport->n_ranks == 1 || !m->o->mpi)
        return ST_OK;
    m->cache = cache_folder();
    status st = chunks_create(m->model->file, m->cache, &m->chunks);
    m->worker_options.chunks = m->chunks;
    return st;
}

/* All is loaded and compared: from here on no file is read. */
static status let_go(struct member *m)
{
    if (m->chunks)
        chunks_remember(m->chunks);
    chunks_free(m->chunks);
    m->chunks = NULL;
    status st = gguf_detach(m->model->file);
    return st || !m->neurons ? st : gguf_detach(m->neurons->file);
}

/* Everything up to the roll call: opens the files, makes the plan, computes the memory. */
static status prepare(struct member *m)
{
    const struct cluster_options *o = m->o;
    status st = kernels_select(o->kernels, &m->kernels);
    if (!st)
        st = model_of_options(o, m->transport->rank, &m->model, &m->neurons, &m->worker_options.predictor);
    if (!st)
        st = plan_of_options(o, m->model, m->neurons, m->transport->n_ranks, &m->plan, &m->reasons);
    if (st)
        return st;
    uint32_t n_ctx = plan_context(o, m->model);
    struct worker_options *w = &m->worker_options;
    w->model = m->model;
    w->plan = m->plan;
    w->transport = m->transport;
    w->kernels = m->kernels;
    w->n_threads = o->threads ? o->threads : threads_available();
    w->n_ctx = n_ctx;
    w->n_batch = o->n_batch < n_ctx ? o->n_batch : n_ctx;
    w->sparse = o->sparse;
    w->sums_f16 = o->sums_f16;
    w->skip_share = o->skip;
    w->neurons = m->neurons;
    w->observe = o->observe;
    w->observe_arg = o->observe_arg;
    m->hello.file_bytes = gguf_file_bytes(m->model->file);
    m->hello.file_hash = gguf_hash(m->model->file);
    m->hello.n_ctx = n_ctx;
    m->hello.n_batch = w->n_batch;
    describe_settings(m);
    describe_host(&m->hello.host);
    st = hash_plan(m->plan, &m->hello.plan_hash);
    if (!st)
        st = check_memory(m);
    return st ? st : know_chunks(m);
}

static void say_hello(struct member *m, status prepared)
{
    m->hello.version = WIRE_VERSION;
    snprintf(m->hello.release, sizeof m->hello.release, "%s", HEARTH_VERSION);
    m->hello.failed = prepared != ST_OK;
    if (prepared)
        snprintf(m->hello.reason, sizeof m->hello.reason, "%.255s", m->errors.first_error);
}

/* The transport first: after a failure it may still hold messages of the worker. */
static void release(struct member *m)
{
    transport_close(m->transport);
    worker_free(m->worker);
    plan_free(m->plan);
    chunks_free(m->chunks);
    free(m->cache);
    neurons_free(m->neurons);
    model_free(m->model);
    m->chunks = NULL;
    m->cache = NULL;
    m->neurons = NULL;
    m->worker = NULL;
    m->plan = NULL;
    m->model = NULL;
    m->transport = NULL;
}

/* A rank other than 0, from start to STOP. */
static status serve(struct member *m)
{
    status st = transport_connect(m->transport);
    if (st) {
        release(m);
        return st;
    }
    log_catch(&m->errors);
    st = prepare(m);
    say_hello(m, st);
    status joined = worker_join(m->transport, &m->hello);
    st = st ? st : joined;
    if (!st)
        st = worker_create(&m->worker_options, &m->worker);
    if (!st && m->chunks)
        st = worker_tell_chunks(m->transport, m->chunks);
    if (!st)
        st = let_go(m);
    if (!st)
        st = worker_ready(m->transport, machine_held());
    if (!st)
        st = worker_run(m->worker);
    if (st && joined != ST_MISMATCH && st != ST_PEER) /* who was refused, or heard of a failure, tells nothing new */
        worker_fail(m->transport, m->errors.first_error);
    log_catch(NULL);
    release(m);
    return st;
}

static void *serve_thread(void *arg)
{
    serve(arg);
    return NULL;
}

/* This process's endpoint among those of mpirun. */
static status open_network(const struct transport_config *c, const struct cluster_options *o, struct transport **t)
{
    struct network_options network = o->network;
    network.quiet = o->quiet;
    status st = transport_network_open(c, &network, t);
    if (st || (*t)->n_ranks <= PLAN_MAX_RANKS)
        return st;
    if ((*t)->rank == 0)
        log_error("mpirun started %d ranks: at most %d", (*t)->n_ranks, PLAN_MAX_RANKS);
    transport_close(*t);
    return ST_USAGE;
}

/* The endpoint of every rank in this process. */
static status open_transports(const struct cluster_options *o, int *n, struct transport **t)
{
    struct transport_config config = {.end_job = launch_end_job};
    wire_channels(config.channel, TRANSPORT_KINDS);
    if (o->mpi) {
        *n = 1;
        return open_network(&config, o, t);
    }
    *n = o->ranks > 0 ? o->ranks : 1;
    if (*n > PLAN_MAX_RANKS) {
        log_error("--ranks %d: at most %d", *n, PLAN_MAX_RANKS);
        return ST_USAGE;
    }
    return transport_inproc_open(&config, *n, t);
}

static status start_others(struct cluster *c, struct transport **t, int n)
{
    c->others = calloc((size_t)n, sizeof *c->others);
    if (!c->others) {
        log_error("out of memory for %d ranks", n);
        return ST_NOMEM;
    }
    for (int r = 1; r < n; r++) {
        struct member *m = &c->others[r - 1];
        *m = (struct member){.o = &c->o, .transport = t[r]};
        int e = pthread_create(&m->thread, NULL, serve_thread, m);
        if (e) {
            log_error("cannot start rank %d as a thread: %s", r, strerror(e));
            return ST_NOMEM;
        }
        t[r] = NULL; /* the thread's now */
        c->n_others = r;
    }
    return ST_OK;
}

static status pump_own(void *arg, bool *handled)
{
    struct cluster *c = arg;
    bool stopped;
    status st = worker_poll(c->own.worker, handled, &stopped);
    if (st && st != ST_PEER) /* whoever waits for this rank's part must not wait for ever */
        worker_fail(c->own.transport, "could not go on");
    return st;
}

static void print_memory(const struct cluster *c, const struct wire_hello *hellos, const uint64_t *held)
{
    bool shared = c->others != NULL && c->n_others > 0;
    for (int r = 0; r < c->own.transport->n_ranks; r++) {
        if (shared && r > 0)
            log_info("rank %d: %.1f MiB computed", r, (double)hellos[r].need_bytes / (1 << 20));
        else
            log_info("rank %d: %.1f MiB computed, %.1f MiB held%s", r, (double)hellos[r].need_bytes / (1 << 20),
                     (double)held[r] / (1 << 20), shared ? " by the process, all its ranks together" : "");
    }
}

static status open_session(struct cluster *c)
{
    struct member *m = &c->own;
    const struct session_options o = {.transport = m->transport,
                                      .limits = worker_limits(&m->worker_options),
                                      .first_stage = plan_first_stage(m->plan),
                                      .last_stage = plan_last_stage(m->plan),
                                      .pump = pump_own,
                                      .pump_arg = c};
    return session_create(&o, &c->session);
}

/* Waits for the other ranks; then the files are done with. */
static status hear_ready(struct cluster *c, uint64_t *held)
{
    struct member *m = &c->own;
    const struct same_file file = {.chunks = m->chunks, .pool = worker_pool(m->worker), .progress = c->o.progress,
                                   .progress_arg = c->o.progress_arg};
    status st = roll_call_ready(m->transport, &file, held);
    if (!st && m->chunks && chunks_hashed(m->chunks) && !c->o.quiet)
        log_info("hashed %.2f GiB of the model to compare the ranks' copies%s", gib(chunks_hashed(m->chunks)),
                 m->cache ? "; next time these are known" : "");
    return st ? st : let_go(m);
}

/* Rank 0 and the others, who are waiting for it, load what they own; then there is a session. */
static status load_and_open(struct cluster *c, const struct wire_hello *hellos)
{
    struct member *m = &c->own;
    uint64_t held[PLAN_MAX_RANKS] = {0};
    m->worker_options.progress = c->o.progress;
    m->worker_options.progress_arg = c->o.progress_arg;
    status st = worker_create(&m->worker_options, &m->worker);
    if (!st)
        st = hear_ready(c, held);
    if (st)
        return st;
    held[0] = machine_held();
    if (!c->o.quiet)
        print_memory(c, hellos, held);
    if (c->o.sums_f16 && m->transport->n_ranks > 1 && !c->o.quiet)
        log_info("partial sums travel as f16: lossy, the text depends on the plan");
    return open_session(c);
}

/* Rank 0, from start to a session that can be used. */
static status lead(struct cluster *c)
{
    struct member *m = &c->own;
    struct wire_hello hellos[PLAN_MAX_RANKS];
    status st = transport_connect(m->transport);
    if (st)
        return st;
    st = prepare(m);
    if (!st)
        st = tokenizer_create(m->model->file, &c->tokenizer);
    say_hello(m, st);
    status called = roll_call(m->transport, &m->hello, hellos);
    if (st || called)
        return st ? st : called;
    plan_reasons_log(&m->reasons, m->plan, c->o.quiet);
    st = load_and_open(c, hellos);
    if (st)
        worker_fail(m->transport, "start-up failed");
    return st;
}

static status serve_alone(const struct cluster_options *o, struct transport *t)
{
    struct member m = {.o = o, .transport = t};
    return serve(&m);
}

status cluster_start(const struct cluster_options *o, struct cluster **out)
{
    struct transport *t[PLAN_MAX_RANKS] = {0};
    struct cluster *c = NULL;
    int n;
    status st = open_transports(o, &n, t);
    if (st)
        return st;
    if (t[0]->rank > 0) {
        *out = NULL;
        return serve_alone(o, t[0]);
    }
    c = calloc(1, sizeof *c);
    if (!c) {
        log_error("out of memory for a cluster");
        st = ST_NOMEM;
        goto err;
    }
    c->o = *o;
    c->own = (struct member){.o = &c->o, .transport = t[0]};
    if (n > 1 && (st = start_others(c, t, n)))
        goto err;
    if ((st = lead(c)))
        goto err;
    *out = c;
    return ST_OK;
err:
    if (!c || c->n_others < n - 1) /* some ranks never started: those that did must not wait for them */
        transport_abandon(t[0], "start-up failed");
    for (int r = c ? c->n_others + 1 : 0; r < n; r++)
        transport_close(t[r]);
    cluster_stop(c);
    return st;
}

void cluster_stop(struct cluster *c)
{
    if (!c)
        return;
    if (c->session && session_stop(c->session) == ST_OK)
        (void)worker_settle(c->own.worker);
    release(&c->own); /* after a failure the others may wait for what rank 0 holds of them */
    for (int i = 0; i < c->n_others; i++)
        pthread_join(c->others[i].thread, NULL);
    free(c->others);
    session_free(c->session);
    tokenizer_free(c->tokenizer);
    free(c);
}

const struct model *cluster_model(const struct cluster *c) { return c->own.model; }
struct tokenizer const *cluster_tokenizer(const struct cluster *c) { return c->tokenizer; }
const char *cluster_transport(const struct cluster *c) { return c->own.transport->ops->name; }

int cluster_ranks(const struct cluster *c) { return c->own.transport->n_ranks; }
uint32_t cluster_context(const struct cluster *c) { return c->own.worker_options.n_ctx; }
struct session *cluster_session(struct cluster *c) { return c->session; }
const struct neurons *cluster_neurons(const struct cluster *c) { return c->own.neurons; }
enum predictor cluster_predictor(const struct cluster *c) { return c->own.worker_options.predictor; }
