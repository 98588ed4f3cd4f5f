#include "placement/measure/ranks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/arena.h"
#include "base/log.h"
#include "base/machine.h"
#include "placement/measure/bandwidth.h"
#include "placement/measure/ping.h"
#include "transport/deliver.h"

enum { MOST_MESSAGE = 4 << 20 /* bytes */, MOST_TRANSPORTS = 2 };

enum work { WORK_NONE, WORK_FACTS, WORK_MEMORY, WORK_SHARED_MEMORY, WORK_MEASURE, WORK_ECHO, WORK_STOP };

/* What rank 0 tells a rank to do, and what comes back; both travel as they are. */
struct task {
    _Alignas(TRANSPORT_ALIGN) int32_t work;
    int32_t peer, n_sizes;
    int64_t sizes[PROBE_MAX_SIZES];
};

struct answer {
    _Alignas(TRANSPORT_ALIGN) int32_t failed; /* a status */
    struct probe_rank rank;
    struct probe_link link;
};

/* One rank of the probe. */
struct prober {
    const struct probe_options *o;
    struct ping ping;      /* ping.transport NULL: there is one rank */
    struct arena arena;    /* ping.data, and where long messages land */
    struct probe_rank own; /* as far as it is known */
    char name[16];         /* of the transport */
    bool rdma;             /* every rank has it */
    bool more;             /* another transport is measured after this one */
};

/* ---- what every rank does ---- */

/* Makes a text of what may be none, of characters from `least` on, for files and terminals. */
static void clean_text(char *text, size_t size, char least)
{
    text[size - 1] = '\0';
    for (char *c = text; *c; c++)
        if (*c < least || *c == 0x7f || *c == '"' || *c == '\\')
            *c = '?';
}

static void clean_names(struct probe_rank *r)
{
    const char space = ' ', least = space + 1;
    clean_text(r->host, sizeof r->host, least);
    clean_text(r->boot_id, sizeof r->boot_id, least);
    for (int i = 0; i < r->n_gpus; i++) {
        clean_text(r->gpus[i].device, sizeof r->gpus[i].device, least);
        clean_text(r->gpus[i].name, sizeof r->gpus[i].name, space);
        clean_text(r->gpus[i].id, sizeof r->gpus[i].id, least);
    }
}

static void find_facts(const struct probe_options *o, struct probe_rank *r)
{
    struct machine m;
    *r = (struct probe_rank){.cores = o->cores, .threads = o->threads, .n_curve = probe_curve_points(o->threads)};
    if (gethostname(r->host, sizeof r->host - 1) != 0 || !r->host[0])
        strcpy(r->host, "unknown");
    machine_read("", &m);
    memcpy(r->boot_id, m.boot_id, sizeof r->boot_id);
    r->memory_bytes = m.limit_bytes <= INT64_MAX ? m.limit_bytes : 1;
    clean_names(r);
}

/* The CPU's memory, and the GPUs. */
static status measure_own(const struct probe_options *o, struct probe_rank *r)
{
    status st = ST_OK;
    for (int i = 0; i < r->n_curve && !st; i++)
        st = bandwidth_read_peak(probe_curve_threads(r->threads, i), &r->curve[i]);
    r->shared_gb_per_s = r->curve[r->n_curve - 1];
    if (!st)
        o->measure_gpus(r, o->gpus_arg);
    clean_names(r);
    return st;
}

static status take_sizes(struct prober *p, const struct task *t)
{
    bool good = t->n_sizes >= 1 && t->n_sizes <= PROBE_MAX_SIZES;
    for (int i = 0; i < t->n_sizes && good; i++)
        good = t->sizes[i] >= 1 && t->sizes[i] <= MOST_MESSAGE;
    if (!good || t->peer < 0 || t->peer >= p->ping.transport->n_ranks) {
        log_error("rank %d: told to measure %d sizes with rank %d, which cannot be", p->ping.transport->rank,
                  t->n_sizes, t->peer);
        return ST_FORMAT;
    }
    p->ping.n_sizes = t->n_sizes;
    memcpy(p->ping.sizes, t->sizes, sizeof p->ping.sizes);
    return ST_OK;
}

/* Failure of the transport is returned; that of a measurement is an answer. */
static status work(struct prober *p, const struct task *t, struct answer *a)
{
    status st = ST_OK;
    *a = (struct answer){0};
    switch (t->work) {
    case WORK_FACTS:
        find_facts(p->o, &p->own);
        break;
    case WORK_MEMORY:
        a->failed = measure_own(p->o, &p->own);
        break;
    case WORK_SHARED_MEMORY:
        a->failed = bandwidth_read_peak(p->own.threads, &p->own.shared_gb_per_s);
        break;
    case WORK_MEASURE:
        st = take_sizes(p, t);
        st = st ? st : ping_measure(&p->ping, t->peer, &a->link);
        break;
    case WORK_ECHO:
        st = take_sizes(p, t);
        st = st ? st : ping_echo(&p->ping, t->peer);
        break;
    default:
        log_error("rank %d: told to do %d, which it does not know", p->ping.transport->rank, t->work);
        st = ST_FORMAT;
    }
    a->rank = p->own;
    return st;
}

/* A rank other than 0, until rank 0 says stop. */
static status serve(struct prober *p)
{
    struct transport *t = p->ping.transport;
    for (;;) {
        struct arrival a;
        struct answer answer;
        struct task task;
        status st = ping_await(t, 1u << PROBE_TASK, true, &a);
        if (st)
            return st;
        if (a.from != 0 || a.size != sizeof task) {
            log_error("rank %d: a task of %zu bytes from rank %d, expected %zu from rank 0: install the same version "
                      "of hearth everywhere", t->rank, a.size, a.from, sizeof task);
            return ST_FORMAT;
        }
        memcpy(&task, a.data, sizeof task);
        st = transport_release(t, &a);
        if (st || task.work == WORK_STOP) {
            p->more = task.peer;
            return st;
        }
        st = work(p, &task, &answer);
        if (!st)
            st = deliver(t, 0, PROBE_ANSWER, &answer, sizeof answer);
        if (st)
            return st;
    }
}

/* ---- what rank 0 has done ---- */

struct leader {
    struct prober *p;
    uint64_t done, total;           /* steps */
    struct task tasks[PLAN_MAX_RANKS];
    struct answer answers[PLAN_MAX_RANKS];
};

static int n_ranks_of(const struct leader *l)
{
    return l->p->ping.transport ? l->p->ping.transport->n_ranks : 1;
}

static status take_answer(struct leader *l, bool *awaited)
{
    struct transport *t = l->p->ping.transport;
    struct answer *into;
    struct arrival a;
    status st = ping_await(t, 1u << PROBE_ANSWER, true, &a);
    if (st)
        return st;
    if (a.size != sizeof *into || !awaited[a.from]) {
        log_error("rank %d: an answer of %zu bytes, expected %zu: install the same version of hearth everywhere",
                  a.from, a.size, sizeof *into);
        return ST_FORMAT;
    }
    awaited[a.from] = false;
    into = &l->answers[a.from];
    memcpy(into, a.data, sizeof *into);
    if (!probe_rank_possible(&into->rank)) {
        log_error("rank %d: it says that it has %d cores, %d threads, %d bandwidths and %d GPUs, which cannot be",
                  a.from, into->rank.cores, into->rank.threads, into->rank.n_curve, into->rank.n_gpus);
        return ST_FORMAT;
    }
    clean_names(&into->rank);
    return transport_release(t, &a);
}

/* Has every rank do its task, all at once, and waits for their answers. Tasks are none afterwards. */
static status run_tasks(struct leader *l)
{
    const int n = n_ranks_of(l);
    bool awaited[PLAN_MAX_RANKS] = {false};
    int n_awaited = 0;
    status st = ST_OK;
    for (int r = 1; r < n && !st; r++) {
        if (l->tasks[r].work == WORK_NONE)
            continue;
        st = deliver(l->p->ping.transport, r, PROBE_TASK, &l->tasks[r], sizeof l->tasks[r]);
        awaited[r] = true;
        n_awaited++;
    }
    if (!st && l->tasks[0].work != WORK_NONE)
        st = work(l->p, &l->tasks[0], &l->answers[0]);
    for (; n_awaited > 0 && !st; n_awaited--)
        st = take_answer(l, awaited);
    for (int r = 0; r < n && !st; r++) {
        if (l->tasks[r].work != WORK_NONE && l->answers[r].failed) {
            log_error("rank %d could not measure its memory: %s", r, status_name((status)l->answers[r].failed));
            st = ST_NOMEM;
        }
    }
    memset(l->tasks, 0, sizeof l->tasks);
    if (!st)
        l->p->o->progress(l->p->o->progress_arg, "probe", ++l->done, l->total);
    return st;
}

/* The how-manieth rank of its host this one is; *alone: there is no other. */
static int local_index(const struct leader *l, int rank, bool *alone)
{
    int index = 0;
    *alone = true;
    for (int r = 0; r < n_ranks_of(l); r++) {
        const bool same = r != rank && probe_same_host(&l->answers[r].rank, &l->answers[rank].rank);
        *alone &= !same;
        index += same && r < rank;
    }
    return index;
}

/* Facts, then memory: one rank of each host at a time, then all ranks together where a host has several. */
static status learn_ranks(struct leader *l)
{
    const int n = n_ranks_of(l);
    bool alone, any = false;
    int rounds = 0;
    for (int r = 0; r < n; r++)
        l->tasks[r].work = WORK_FACTS;
    status st = run_tasks(l);
    for (int r = 0; r < n && !st; r++) {
        const int index = local_index(l, r, &alone);
        rounds = index >= rounds ? index + 1 : rounds;
        any |= !alone;
    }
    l->total += (uint64_t)(rounds + any);
    for (int i = 0; i < rounds && !st; i++) {
        for (int r = 0; r < n; r++)
            l->tasks[r].work = local_index(l, r, &alone) == i ? WORK_MEMORY : WORK_NONE;
        st = run_tasks(l);
    }
    for (int r = 0; r < n && any && !st; r++) {
        local_index(l, r, &alone);
        l->tasks[r].work = alone ? WORK_NONE : WORK_SHARED_MEMORY;
    }
    return st || !any ? st : run_tasks(l);
}

static status learn_links(struct leader *l, struct probe_transport *out)
{
    const int n = n_ranks_of(l);
    struct task task = {.n_sizes = l->p->o->n_sizes};
    status st = ST_OK;
    memcpy(task.sizes, l->p->o->sizes, sizeof task.sizes);
    memcpy(out->name, l->p->name, sizeof out->name);
    for (int i = 0; i < n * n && !st; i++) {
        const int from = i / n, to = i % n;
        if (from == to)
            continue;
        l->tasks[from] = l->tasks[to] = task;
        l->tasks[from].work = WORK_MEASURE;
        l->tasks[from].peer = to;
        l->tasks[to].work = WORK_ECHO;
        l->tasks[to].peer = from;
        st = run_tasks(l);
        out->links[i] = l->answers[from].link;
    }
    return st;
}

static status send_stop(struct transport *t, bool more)
{
    const struct task stop = {.work = WORK_STOP, .peer = more};
    return deliver_all(t, PROBE_TASK, &stop, sizeof stop);
}

/* ---- both ---- */

static status open_network(const struct prober *p, enum network_kind kind, struct transport **out)
{
    struct transport_config config = probe_channels;
    struct network_options network = p->o->network;
    config.end_job = p->o->end_job;
    network.kind = kind;
    network.quiet = true;
    return transport_network_open(&config, &network, out);
}

/* This rank's endpoint, with the memory that its messages need. */
static status open_prober(struct prober *p, enum network_kind kind)
{
    struct transport *t;
    status st = open_network(p, kind, &t);
    if (st)
        return st;
    p->ping.transport = t;
    snprintf(p->name, sizeof p->name, "%s", t->ops->name);
    if (t->n_ranks > PLAN_MAX_RANKS) {
        if (t->rank == 0)
            log_error("mpirun started %d ranks: at most %d", t->n_ranks, PLAN_MAX_RANKS);
        return ST_USAGE;
    }
    st = arena_map(&p->arena, 2 * (size_t)MOST_MESSAGE);
    if (st)
        return st;
    p->ping.data = arena_alloc(&p->arena, MOST_MESSAGE);
    void *landing = arena_alloc(&p->arena, MOST_MESSAGE); /* of one sender at a time */
    st = transport_connect(t);
    if (!st)
        st = transport_register(t, p->arena.base, p->arena.size);
    for (int r = 0; r < t->n_ranks && !st; r++)
        st = transport_lend(t, r, probe_channels.channel[PROBE_PING], landing, MOST_MESSAGE);
    return st;
}

/* Whether automatic choice gives RDMA: the same on every rank. */
static status find_rdma(struct prober *p)
{
    struct transport *t;
    status st = open_network(p, p->o->network.kind, &t);
    if (st)
        return st;
    p->rdma = strcmp(t->ops->name, "verbs") == 0;
    st = transport_connect(t);
    transport_close(t);
    return st;
}

static void close_prober(struct prober *p)
{
    transport_close(p->ping.transport);
    arena_unmap(&p->arena);
    p->ping.transport = NULL;
}

/* Rank 0 with one transport: the first one tells about ranks too. */
static status lead(struct prober *p, struct probe **out)
{
    struct leader *l = aligned_alloc(TRANSPORT_ALIGN, sizeof *l); /* its tasks are messages */
    const int n = p->ping.transport ? p->ping.transport->n_ranks : 1;
    const bool first = !*out;
    status st = ST_OK;
    if (!l) {
        log_error("no memory to lead %d ranks", n);
        return ST_NOMEM;
    }
    *l = (struct leader){.p = p, .total = (uint64_t)(n * (n - 1) + first)};
    if (first) {
        st = learn_ranks(l);
        if (!st)
            st = probe_create(n, n > 1 ? MOST_TRANSPORTS : 0, out);
        for (int r = 0; r < n && !st; r++)
            (*out)->ranks[r] = l->answers[r].rank;
        if (!st)
            (*out)->n_transports = 0; /* that are filled in */
    }
    if (!st && n > 1)
        st = learn_links(l, &(*out)->transports[(*out)->n_transports++]);
    free(l);
    return st;
}

/* One transport, from start to stop. p->more, on ranks other than 0: whether rank 0 goes on to another. */
static status probe_over(struct prober *p, enum network_kind kind, bool go_on, struct probe **probe)
{
    status st = open_prober(p, kind);
    const bool opened = !st, leads = opened && p->ping.transport->rank == 0;
    if (leads)
        st = go_on ? lead(p, probe) : ST_OK;
    else if (opened)
        st = serve(p);
    if (leads)
        p->more = p->more && go_on && !st;
    if (leads && st != ST_PEER && st != ST_FORMAT) { /* all wait for their next task */
        status told = send_stop(p->ping.transport, p->more);
        st = st ? st : told;
    } else if (st && st != ST_PEER && st != ST_USAGE && p->ping.transport) { /* some wait for this rank */
        transport_abandon(p->ping.transport, "it cannot go on");
    }
    close_prober(p);
    return st;
}

/* Over MPI; and over RDMA, if every rank has it. */
static status probe_network(struct prober *p, bool go_on, struct probe **probe)
{
    const enum network_kind kind = p->o->network.kind;
    p->more = kind == NETWORK_AUTO;
    status st = probe_over(p, kind == NETWORK_VERBS ? NETWORK_VERBS : NETWORK_MPI, go_on, probe);
    if (st || !p->more)
        return st;
    st = find_rdma(p);
    if (!st && p->rdma) {
        p->more = false;
        st = probe_over(p, NETWORK_VERBS, go_on, probe);
    }
    return st;
}

status probe_ranks(const struct probe_options *o, bool go_on, struct probe **out)
{
    struct prober p = {.o = o};
    struct probe *probe = NULL;
    status st = ST_OK;
    arena_dry(&p.arena);
    if (o->mpi)
        st = probe_network(&p, go_on, &probe);
    else if (go_on)
        st = lead(&p, &probe);
    if (st) {
        probe_free(probe);
        return st;
    }
    if (probe) {
        probe->n_sizes = o->n_sizes;
        memcpy(probe->sizes, o->sizes, sizeof probe->sizes);
    }
    *out = probe;
    return ST_OK;
}
