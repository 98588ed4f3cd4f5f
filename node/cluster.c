#include "node/cluster.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/log.h"
#include "base/machine.h"
#include "coordinator/dialogue.h"
#include "coordinator/session.h"
#include "kernels/kernels.h"
#include "model/tokenizer.h"
#include "node/links.h"
#include "node/member.h"
#include "node/offers.h"
#include "node/roll_call.h"
#include "wire/blob.h"
#include "wire/channels.h"
#include "worker/holders.h"

/* Numbers that rooms which do not know each other must have alike. */
_Static_assert((int)WIRE_CHANNELS == (int)TRANSPORT_CHANNELS, "a channel of messages is one of the transport's");
_Static_assert((int)WIRE_KINDS <= (int)WIRE_BLOB && (int)WIRE_BLOB < (int)TRANSPORT_KINDS, "all kinds are apart");
_Static_assert((int)WIRE_HEADER % (int)TRANSPORT_ALIGN == 0, "what follows a header is aligned as the message is");
_Static_assert((int)ARENA_ALIGN % (int)TRANSPORT_ALIGN == 0, "what an arena gives can be a message");
_Static_assert((int)WIRE_SUMS == (int)SUM_BLOCK, "sums are packed in the blocks that messages count");
_Static_assert((int)WIRE_CODES == (int)ACT_BLOCK, "the codes of a block have a scale in messages too");

struct cluster {
    struct cluster_options o;
    struct member own;               /* rank 0 */
    struct member *others;           /* in-process ranks 1 .. n - 1; NULL under mpirun */
    int n_others;                    /* threads that run */
    struct tokenizer *tokenizer;
    struct session *session;
    struct dialogue *dialogue;
    char devices[128];               /* rank 0's, for people */
    char transport[32];              /* how its ranks talk */
    char hosts[PLAN_MAX_RANKS][sizeof ((struct wire_host *)0)->name]; /* of each rank */
};

static void *serve_thread(void *arg)
{
    member_serve(arg);
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
    struct transport_config config = {.end_job = o->end_job};
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

/* What the GPUs of all ranks have. */
static void print_gpus(const struct cluster *c)
{
    const struct plan *p = c->own.plan;
    for (int h = 0; h < plan_n_holders(p); h++) {
        const struct gpu_info *gpu = plan_holder_rank(p, h) == 0 ? gpus_of(&c->own.gpus, p, h) : NULL;
        int64_t begin, end;
        if (plan_holder_is_cpu(p, h))
            continue;
        plan_rows(p, h, c->own.model->hp.n_vocab, &begin, &end);
        log_info("rank %d: %s%s%s%s has %s%d of %d layers%s", plan_holder_rank(p, h), plan_holder_device(p, h),
                 gpu ? " (" : "", gpu ? gpu->name : "", gpu ? ")" : "", p->n_ranks > 1 ? "its part of " : "",
                 plan_holder_layers(p, h), p->model.n_layers, begin < end ? " and of the output matrix" : "");
    }
}

/* Rank 0's devices that have something, the home of the residual stream first. */
static void name_devices(struct cluster *c)
{
    const struct plan *p = c->own.plan;
    const int n = plan_n_holders(p), home = plan_home(p, 0);
    size_t at = 0;
    c->devices[0] = '\0';
    for (int i = 0; i < n; i++) {
        const int h = (home + i) % n;
        const struct gpu_info *gpu = gpus_of(&c->own.gpus, p, h);
        int64_t begin, end;
        plan_rows(p, h, c->own.model->hp.n_vocab, &begin, &end);
        if (plan_holder_rank(p, h) != 0 || (h != home && begin == end && !plan_holder_layers(p, h)) ||
            at >= sizeof c->devices)
            continue;
        at += (size_t)snprintf(c->devices + at, sizeof c->devices - at, "%s%s%s%s%s", at ? " + " : "",
                               plan_holder_device(p, h), gpu ? " (" : "", gpu ? gpu->name : "", gpu ? ")" : "");
    }
}

static uint32_t count_stages(const struct plan *p)
{
    uint32_t n = 1;
    for (int r = plan_first_stage(p); r != plan_last_stage(p); r = plan_next_stage(p, r))
        n++;
    return n;
}

static status open_session(struct cluster *c)
{
    struct member *m = &c->own;
    const struct session_options o = {.transport = m->transport,
                                      .limits = worker_limits(&m->worker_options),
                                      .n_stages = count_stages(m->plan),
                                      .first_stage = plan_first_stage(m->plan),
                                      .last_stage = plan_last_stage(m->plan),
                                      .pump = pump_own,
                                      .pump_arg = c};
    status st = session_create(&o, &c->session);
    return st ? st : dialogue_create(c->session, &c->dialogue);
}

/* Waits for the other ranks; then the files are done with. */
static status hear_ready(struct cluster *c, uint64_t *held)
{
    struct member *m = &c->own;
    const struct same_file file = {.chunks = m->chunks, .pool = worker_pool(m->worker), .progress = c->o.progress,
                                   .progress_arg = c->o.progress_arg};
    status st = roll_call_ready(m->transport, &file, held);
    if (!st && m->chunks && chunks_hashed(m->chunks) && !c->o.quiet)
        log_info("hashed %.2f GiB of the model to compare the ranks' copies%s",
                 (double)chunks_hashed(m->chunks) / (1 << 30), m->cache ? "; next time these are known" : "");
    return st ? st : member_let_go(m);
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
    for (int r = 0; r < m->transport->n_ranks; r++)
        memcpy(c->hosts[r], hellos[r].host.name, sizeof c->hosts[r]);
    name_devices(c);
    if (!c->o.quiet)
        print_memory(c, hellos, held);
    if (!c->o.quiet)
        print_gpus(c);
    if (c->o.sums_f16 && m->transport->n_ranks > 1 && !c->o.quiet)
        log_info("partial sums travel as f16: lossy, the text depends on the plan");
    return open_session(c);
}

static status call(struct member *m, status prepared, struct wire_hello *hellos)
{
    member_say_hello(m, prepared);
    m->joined = roll_call(m->transport, &m->hello, hellos);
    return prepared ? prepared : m->joined;
}

/* Until all ranks have the same plan, and memory for it. */
static status agree(struct cluster *c, struct wire_hello *hellos)
{
    struct member *m = &c->own;
    status st = member_prepare(m);
    if (!st)
        st = tokenizer_create(m->model->file, &c->tokenizer);
    st = call(m, st, hellos);
    if (st)
        return st;
    st = offers_exchange(m->transport, m->offers);
    if (st)
        worker_fail(m->transport, "refused at start-up");
    return st ? st : call(m, member_settle(m), hellos);
}

/* Rank 0, from start to a session that can be used. */
static status lead(struct cluster *c)
{
    struct member *m = &c->own;
    struct wire_hello hellos[PLAN_MAX_RANKS];
    status st = transport_connect(m->transport);
    if (!st)
        st = agree(c, hellos);
    if (st)
        return st;
    plan_reasons_log(&m->reasons, m->plan, c->o.quiet);
    const char *below = m->transport->ops->name;
    st = links_open(m);
    snprintf(c->transport, sizeof c->transport, "%s%s", below, m->linked ? " + nccl" : "");
    if (!st)
        st = load_and_open(c, hellos);
    if (st)
        worker_fail(m->transport, "start-up failed");
    return st;
}

static status serve_alone(const struct cluster_options *o, struct transport *t)
{
    struct member m = {.o = o, .transport = t};
    return member_serve(&m);
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
    member_release(&c->own); /* after a failure the others may wait for what rank 0 holds of them */
    for (int i = 0; i < c->n_others; i++)
        pthread_join(c->others[i].thread, NULL);
    free(c->others);
    dialogue_free(c->dialogue);
    session_free(c->session);
    tokenizer_free(c->tokenizer);
    free(c);
}

const struct model *cluster_model(const struct cluster *c) { return c->own.model; }
struct tokenizer const *cluster_tokenizer(const struct cluster *c) { return c->tokenizer; }
const char *cluster_transport(const struct cluster *c) { return c->transport; }
const char *cluster_devices(const struct cluster *c) { return c->devices; }

const char *cluster_device(const struct cluster *c, int rank, int i)
{
    const int holder = holder_of(c->own.plan, rank, i);
    return holder < 0 ? NULL : plan_holder_device(c->own.plan, holder);
}

const char *cluster_host(const struct cluster *c, int rank) { return c->hosts[rank]; }
const struct plan *cluster_plan(const struct cluster *c) { return c->own.plan; }
int cluster_ranks(const struct cluster *c) { return c->own.transport->n_ranks; }
uint32_t cluster_context(const struct cluster *c) { return c->own.worker_options.n_ctx; }
struct session *cluster_session(struct cluster *c) { return c->session; }
struct dialogue *cluster_dialogue(struct cluster *c) { return c->dialogue; }
uint64_t cluster_page_bytes(const struct cluster *c) { return c->own.page_bytes; }
