#include "node/member.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/machine.h"
#include "base/threads.h"
#include "device/cpu/table.h"
#include "kernels/kernels.h"
#include "model/chunks.h"
#include "model/tokenizer.h"
#include "node/cache.h"
#include "node/kv.h"
#include "node/links.h"
#include "node/offers.h"
#include "node/offload.h"
#include "sampling/grammar.h"
#include "sampling/token_trie.h"

const struct device_ops *const member_devices[1] = {&device_cpu};

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

/* A rank that lacks what the plan gives it says why it has no GPU. */
static status check_devices(const struct member *m)
{
    const struct plan *p = m->plan;
    for (int h = 0; h < plan_n_holders(p); h++) {
        if (plan_holder_rank(p, h) != m->transport->rank || plan_holder_is_cpu(p, h) || gpus_of(&m->gpus, p, h))
            continue;
        log_error("the plan's holders[%d] is %s of rank %d, which has no such device: %s", h, plan_holder_device(p, h),
                  m->transport->rank, m->gpus.n_usable ? "it has other GPUs" : m->gpus.why);
        return ST_UNSUPPORTED;
    }
    return worker_check_devices(&m->worker_options, m->transport->rank);
}

/* What this rank's holders need of its main memory. */
static status add_up(const struct member *m, struct worker_memory *sum)
{
    const struct plan *p = m->plan;
    status st = check_devices(m);
    *sum = (struct worker_memory){0};
    for (int h = 0; h < plan_n_holders(p) && !st; h++) {
        struct worker_memory need;
        if (plan_holder_rank(p, h) != m->transport->rank || !plan_holder_is_cpu(p, h))
            continue;
        if ((st = worker_memory(&m->worker_options, h, &need)) != ST_OK)
            break;
        sum->weights += need.weights;
        sum->kv += need.kv;
        sum->states += need.states;
        sum->buffers += need.buffers;
        sum->total += need.total;
    }
    return st;
}

/* Checks what this rank alone will need, before anything is loaded; what the ranks of a host need together is added up
 * at the roll call. */
static status check_memory(struct member *m)
{
    struct worker_memory need;
    status st = add_up(m, &need);
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
    char kv[KV_TEXT], states[48] = "";
    if (need.states)
        snprintf(states, sizeof states, ", states of delta nets %.2f", gib(need.states));
    log_error("%.2f GiB of memory needed (weights %.2f, KV cache of %s %.2f%s, buffers %.2f), %s %.2f: give the rank a "
              "smaller share (--shares, --plan), more ranks, a shorter context (-c) or less KV memory (--kv-budget)",
              gib(need.total), gib(need.weights), kv_text(&m->worker_options, kv), gib(need.kv), states,
              gib(need.buffers),
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

status member_let_go(struct member *m)
{
    if (m->chunks)
        chunks_remember(m->chunks);
    chunks_free(m->chunks);
    m->chunks = NULL;
    status st = gguf_detach(m->model->file);
    return st || !m->neurons ? st : gguf_detach(m->neurons->file);
}

/* Whether the rank looks for GPUs: it is to have them, or a plan names one of its. */
static bool wants_gpus(const struct member *m)
{
    const struct plan *p = m->plan;
    bool planned = false;
    for (int h = 0; h < plan_n_holders(p); h++)
        planned |= plan_holder_rank(p, h) == m->transport->rank && !plan_holder_is_cpu(p, h);
    return planned || (!m->o->plan && plan_may_use_gpus(m->o));
}

/* What this rank's GPUs would get, or what they need by a plan: the other ranks are told. */
static status offer_gpus(struct member *m)
{
    struct worker_options *w = &m->worker_options;
    struct wire_gpus *own = &m->offers[m->transport->rank];
    if (!wants_gpus(m)) {
        if (m->transport->rank == 0)
            plan_gpus_warn(m->o);
        return ST_OK;
    }
    gpus_find(m->o->plugin_dir, &m->gpus);
    if (m->gpus.n_usable)
        m->devices[w->n_devices++] = m->gpus.plugin->ops;
    return m->o->plan ? offload_needs(w, m->transport->rank, &m->gpus, own)
                      : offload_offer(m->o, w, m->transport->rank, &m->gpus, &m->reasons, own);
}

/* Opens the files and makes the plan, as if there were CPUs alone unless it is a file. */
static status prepare_alone(struct member *m)
{
    const struct cluster_options *o = m->o;
    status st = kernels_select(o->kernels, &m->kernels);
    if (!st)
        st = model_of_options(o, m->transport->rank, &m->model, &m->neurons, &m->worker_options.predictor);
    if (!st)
        st = plan_of_options(o, m->model, m->neurons, m->transport->n_ranks, &m->plan, &m->reasons);
    if (st)
        return st;
    struct worker_options *w = &m->worker_options;
    w->model = m->model;
    w->plan = m->plan;
    w->transport = m->transport;
    m->devices[0] = member_devices[0];
    w->devices = m->devices;
    w->n_devices = 1;
    w->vram_budget = o->vram_budget;
    w->kernels = m->kernels;
    w->n_threads = o->threads ? o->threads : threads_available();
    w->sparse = o->sparse;
    w->sums_f16 = o->sums_f16;
    w->n_grammar_ops = o->grammars ? GRAMMAR_OPS : 0;
    w->skip_share = o->skip;
    w->neurons = m->neurons;
    w->observe = o->observe;
    w->observe_arg = o->observe_arg;
    return kv_settle(o, w, &m->page_bytes);
}

status member_prepare(struct member *m)
{
    const struct worker_options *w = &m->worker_options;
    status st = prepare_alone(m);
    if (st)
        return st;
    m->hello.file_bytes = gguf_file_bytes(m->model->file);
    m->hello.file_hash = gguf_hash(m->model->file);
    m->hello.n_ctx = w->n_ctx;
    m->hello.n_batch = w->n_batch;
    m->hello.n_sequences = w->n_sequences;
    m->hello.n_pages = w->n_pages;
    m->hello.n_grammar_ops = w->n_grammar_ops;
    describe_settings(m);
    describe_host(&m->hello.host);
    st = hash_plan(m->plan, &m->hello.plan_hash);
    return st ? st : offer_gpus(m);
}

/* Whoever samples knows what tokens print, where texts may have grammars. */
static status make_trie(struct member *m)
{
    struct tokenizer *t;
    if (!m->o->grammars || m->transport->rank != plan_last_stage(m->plan))
        return ST_OK;
    status st = tokenizer_create(m->model->file, &t);
    if (st)
        return st;
    st = token_trie_create(t, &m->trie);
    tokenizer_free(t);
    m->worker_options.trie = m->trie;
    return st;
}

status member_settle(struct member *m)
{
    status st = m->o->plan ? offload_check(m->offers, m->transport->n_ranks)
                           : offload_apply(m->plan, m->offers, &m->reasons, m->o->device == DEVICES_CUDA);
    if (st)
        return st;
    plan_reasons_settle(&m->reasons, m->plan);
    st = hash_plan(m->plan, &m->hello.plan_hash);
    if (!st)
        st = make_trie(m);
    if (!st)
        st = check_memory(m);
    return st ? st : know_chunks(m);
}

void member_say_hello(struct member *m, status prepared)
{
    m->hello.version = WIRE_VERSION;
    snprintf(m->hello.release, sizeof m->hello.release, "%s", HEARTH_VERSION);
    m->hello.failed = prepared != ST_OK;
    if (prepared)
        snprintf(m->hello.reason, sizeof m->hello.reason, "%.255s", m->errors.first_error);
}

/* The transport first: after a failure it may still hold messages of the worker. */
void member_release(struct member *m)
{
    transport_close(m->transport);
    worker_free(m->worker);
    token_trie_free(m->trie);
    plan_free(m->plan);
    plan_reasons_free(&m->reasons);
    chunks_free(m->chunks);
    free(m->cache);
    neurons_free(m->neurons);
    model_free(m->model);
    m->chunks = NULL;
    m->cache = NULL;
    m->neurons = NULL;
    m->worker = NULL;
    m->trie = NULL;
    m->plan = NULL;
    m->model = NULL;
    m->transport = NULL;
}

/* Says to rank 0 how it went so far; the answer comes when all have. */
static status join(struct member *m, status prepared)
{
    member_say_hello(m, prepared);
    m->joined = worker_join(m->transport, &m->hello);
    return prepared ? prepared : m->joined;
}

static status load(struct member *m)
{
    status st = worker_create(&m->worker_options, &m->worker);
    if (!st && m->chunks)
        st = worker_tell_chunks(m->transport, m->chunks);
    if (!st)
        st = member_let_go(m);
    return st ? st : worker_ready(m->transport, machine_held());
}

status member_serve(struct member *m)
{
    status st = transport_connect(m->transport);
    if (st) {
        member_release(m);
        return st;
    }
    log_catch(&m->errors);
    st = join(m, member_prepare(m));
    if (!st)
        st = offers_exchange(m->transport, m->offers);
    if (!st)
        st = join(m, member_settle(m));
    if (!st)
        st = links_open(m);
    if (!st)
        st = load(m);
    if (!st)
        st = worker_run(m->worker);
    if (m->joined == ST_FORMAT) /* rank 0 may be of another release, and not listen */
        transport_abandon(m->transport, m->errors.first_error);
    else if (st && m->joined != ST_MISMATCH && st != ST_PEER) /* who was refused, or heard of a failure, tells nothing
                                                               * new */
        worker_fail(m->transport, m->errors.first_error);
    log_catch(NULL);
    member_release(m);
    return st;
}
