/* hearth plan: shows or checks which rank holds what, and how often that fires. */
#include <stdlib.h>
#include "base/log.h"
#include "cli/command.h"
#include "cli/options.h"
#include "kernels/kernels.h"
#include "node/kv.h"
#include "node/member.h"
#include "node/offload.h"
#include "node/planning.h"
#include "node/topology.h"
#include "worker/worker.h"

enum { SOME_TEXTS = 8 }; /* that decode at once, as an example of such */

struct planned {
    struct cluster_options o;
    enum table_format format; /* JSON: the plan itself */
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct planned *planned = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = state->child_inputs[1] = &planned->o;
        return 0;
    case 'o':
        if (!table_format_of(arg, &planned->format))
            return option_wrong(state, "-o takes md, csv or json, not '%s'", arg);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static double mib(uint64_t bytes)
{
    return (double)bytes / (1 << 20);
}

/* As many as --ranks says; else as the plan, the shares or the probe have. */
static status count_ranks(const struct cluster_options *o, int *n_ranks)
{
    double shares[PLAN_MAX_RANKS];
    struct plan *p = NULL;
    struct probe *probe = NULL;
    *n_ranks = o->ranks;
    if (o->ranks > 0)
        return ST_OK;
    *n_ranks = 1;
    if (o->shares)
        return plan_shares(o->shares, shares, PLAN_MAX_RANKS, n_ranks);
    status st = o->plan ? plan_load(o->plan, &p) : o->probe ? probe_load(o->probe, &probe) : ST_OK;
    if (st != ST_OK)
        return st;
    if (o->plan)
        *n_ranks = p->n_ranks;
    else if (o->probe)
        *n_ranks = probe->n_ranks;
    plan_free(p);
    probe_free(probe);
    return ST_OK;
}

/* Neurons, and how many of them fire at a token, on average; 0: nobody has counted. */
struct heat {
    double neurons, live;
};

/* What a holder has of the model. */
struct holding {
    int first, last;          /* its stage */
    int64_t neurons, rows;
    int64_t kv_heads;         /* of all layers */
    int64_t experts;          /* of all layers, of which it has neurons */
    int ranges;               /* of neurons */
    struct heat stage, shard; /* of its neurons in layers of its stage, and in others' */
    double all_live;          /* of all neurons */
    struct worker_memory need;
    double read, read_some, read_batch; /* bytes of weights that a token reads, one each of SOME_TEXTS, -b of a
                                         * prompt */
    double ms, ms_percent;    /* that it computes for a token by the probe, and of the token's time; 0: no probe */
};

/* Of how many experts of a layer these are neurons. */
static int64_t count_experts(const struct plan_shape *shape, const struct neuron_range *ranges, int n)
{
    int64_t sum = 0, next = 0; /* not counted yet */
    for (int i = 0; i < n && shape->n_experts; i++) {
        const int64_t first = plan_bundle_of(shape, ranges[i].begin), last = plan_bundle_of(shape, ranges[i].end - 1);
        const int64_t from = first > next ? first : next, end = last < shape->n_experts ? last + 1 : shape->n_experts;
        sum += from < end ? end - from : 0;
        next = last + 1;
    }
    return sum;
}

/* Adds a layer's neurons to what a holder has. fired: of the layer's neurons; NULL if nobody has counted. */
static void add_layer(const struct plan *p, int layer, int holder, int64_t n_heads, const float *fired,
                      struct holding *h)
{
    const struct neuron_range *ranges;
    struct heat *heat = p->layers[layer].stage == plan_holder_rank(p, holder) ? &h->stage : &h->shard;
    int n = plan_neurons(p, layer, holder, &ranges);
    int64_t first_head, end_head;
    plan_heads(p, layer, holder, n_heads, &first_head, &end_head);
    h->kv_heads += end_head - first_head;
    h->ranges += n;
    h->experts += count_experts(&p->layers[layer].shape, ranges, n);
    h->neurons += plan_n_neurons(p, layer, holder);
    heat->neurons += (double)plan_n_neurons(p, layer, holder);
    for (int64_t j = 0; j < plan_shape_neurons(&p->layers[layer].shape) && fired; j++)
        h->all_live += fired[j];
    for (int i = 0; i < n && fired; i++) {
        for (int32_t j = ranges[i].begin; j < ranges[i].end; j++)
            heat->live += fired[j];
    }
}

static status holder_has(const struct worker_options *w, int holder, struct holding *h)
{
    const struct plan *p = w->plan;
    int64_t begin, end;
    *h = (struct holding){0};
    if (plan_home(p, plan_holder_rank(p, holder)) == holder)
        plan_stage(p, plan_holder_rank(p, holder), &h->first, &h->last);
    plan_rows(p, holder, w->model->hp.n_vocab, &begin, &end);
    h->rows = end - begin;
    for (int l = 0; l < p->model.n_layers; l++)
        add_layer(p, l, holder, model_heads(&w->model->hp, l), w->neurons ? w->neurons->layers[l].fired : NULL, h);
    return worker_memory(w, holder, &h->need);
}

static void stage_text(const struct holding *h, const char *form, char *out, size_t n)
{
    snprintf(out, n, h->last > h->first ? form : "none", h->first, h->last - 1);
}

enum { HOLDER_NAME = 32 };

/* "rank 1" for its first CPU, "rank 1's cuda:0" for another device. */
static void holder_name(const struct plan *p, int holder, char out[HOLDER_NAME])
{
    const int rank = plan_holder_rank(p, holder);
    if (holder < p->n_ranks)
        snprintf(out, HOLDER_NAME, "rank %d", rank);
    else
        snprintf(out, HOLDER_NAME, "rank %d's %s", rank, plan_holder_device(p, holder));
}

/* What several tokens read, where that is not what one reads. */
static void several_text(const struct worker_options *w, const struct holding *h, char *out, size_t n)
{
    out[0] = '\0';
    if (h->read_batch > h->read)
        snprintf(out, n, ", one each of %d texts %.1f and %u of a prompt %.1f", SOME_TEXTS, h->read_some / (1 << 20),
                 w->n_batch, h->read_batch / (1 << 20));
}

/* For people who asked for the plan itself: on standard error. */
static void print_line(int holder, const struct worker_options *w, const struct holding *h)
{
    char stage[48], heat[64] = "", busy[64] = "", experts[48] = "", states[48] = "", several[96], name[HOLDER_NAME];
    char kv[KV_TEXT];
    holder_name(w->plan, holder, name);
    stage_text(h, "layers %d to %d", stage, sizeof stage);
    if (h->all_live > 0)
        snprintf(heat, sizeof heat, " with %.1f %% of what fires", 100 * (h->stage.live + h->shard.live) / h->all_live);
    if (h->ms > 0)
        snprintf(busy, sizeof busy, ", computes %.2f ms a token (%.0f %% of its time)", h->ms, h->ms_percent);
    if (h->experts)
        snprintf(experts, sizeof experts, " of %lld experts", (long long)h->experts);
    if (h->need.states)
        snprintf(states, sizeof states, ", states of delta nets %.1f", mib(h->need.states));
    several_text(w, h, several, sizeof several);
    log_info("%s: stage of %s, %lld KV heads, %lld neurons%s%s, %.1f MiB (weights %.1f, of which a token reads %.1f%s, "
             "KV cache of %s %.1f%s, buffers %.1f)%s",
             name, stage, (long long)h->kv_heads, (long long)h->neurons, experts, heat, mib(h->need.total),
             mib(h->need.weights), h->read / (1 << 20), several, kv_text(w, kv), mib(h->need.kv), states,
             mib(h->need.buffers), busy);
}

static json_t *percent(double part, double whole)
{
    return whole > 0 ? json_real(100 * part / whole) : json_null();
}

/* The share of neurons that fires, null if there are none or nobody has counted. */
static json_t *live_percent(const struct heat *heat, const struct holding *h)
{
    return percent(heat->live, h->all_live > 0 ? heat->neurons : 0);
}

static json_t *number(double ms)
{
    return ms > 0 ? json_real(ms) : json_null();
}

static json_t *table_row(int holder, const struct plan *p, const struct holding *h)
{
    char stage[48];
    double all = 0;
    for (int l = 0; l < p->model.n_layers; l++)
        all += (double)plan_shape_neurons(&p->layers[l].shape);
    stage_text(h, "%d-%d", stage, sizeof stage);
    return json_pack("{si ss ss sI sI sI so so so so si sI sf sf sf sf sf sf sf sf so so}", "rank",
                     plan_holder_rank(p, holder),
                     "device", plan_holder_device(p, holder), "stage", stage, "kv_heads", (json_int_t)h->kv_heads,
                     "experts", (json_int_t)h->experts, "neurons", (json_int_t)h->neurons, "neurons_percent",
                     percent((double)h->neurons, all), "fired_percent",
                     percent(h->stage.live + h->shard.live, h->all_live),
                     "stage_live_percent", live_percent(&h->stage, h), "shard_live_percent", live_percent(&h->shard, h),
                     "ranges", h->ranges, "rows", (json_int_t)h->rows, "weights_mib", mib(h->need.weights), "read_mib",
                     h->read / (1 << 20), "read_8_mib", h->read_some / (1 << 20), "read_batch_mib",
                     h->read_batch / (1 << 20), "kv_mib", mib(h->need.kv), "states_mib", mib(h->need.states),
                     "buffers_mib", mib(h->need.buffers), "total_mib", mib(h->need.total), "ms_per_token",
                     number(h->ms), "busy_percent", number(h->ms_percent));
}

/* Adds a holder's memory to what its rank's CPUs need, which have one budget: used [n_ranks] bytes. */
static status check_budget(const struct planned *planned, const struct plan *p, int holder, const struct holding *h,
                           uint64_t *used)
{
    const uint64_t budget = planned->o.ram_budget, before = used[plan_holder_rank(p, holder)];
    char name[HOLDER_NAME], beside[64] = "";
    if (!budget || !plan_holder_is_cpu(p, holder))
        return ST_OK;
    used[plan_holder_rank(p, holder)] += h->need.total;
    if (h->need.total <= budget && before <= budget - h->need.total)
        return ST_OK;
    holder_name(p, holder, name);
    if (before)
        snprintf(beside, sizeof beside, " beside the %.1f of its other holders", mib(before));
    log_error("%s needs %.1f MiB of memory%s, the budget is %.1f (--ram-budget)", name, mib(h->need.total), beside,
              mib(budget));
    return ST_BUDGET;
}

/* A row or a line for each holder. ST_BUDGET (logged) if a rank needs more memory than it may use. */
static status report(const struct planned *planned, const struct worker_options *w, const struct plan_reasons *why,
                     json_t *rows)
{
    uint64_t used[PLAN_MAX_RANKS] = {0};
    for (int i = 0; i < plan_n_holders(w->plan); i++) {
        struct holding h;
        status st = holder_has(w, i, &h);
        if (st != ST_OK)
            return st;
        h.ms = why->ms[i];
        h.read = cost_read_bytes(w->model, w->plan, i, 1);
        h.read_some = cost_read_bytes(w->model, w->plan, i, SOME_TEXTS);
        h.read_batch = cost_read_bytes(w->model, w->plan, i, w->n_batch);
        h.ms_percent = h.ms > 0 ? 100 * h.ms / cost_ms(&why->cost) : 0;
        if (planned->format != TABLE_JSON && json_array_append_new(rows, table_row(i, w->plan, &h)) != 0) {
            log_error("no memory for the table");
            return ST_NOMEM;
        }
        if (planned->format == TABLE_JSON && !planned->o.quiet)
            print_line(i, w, &h);
        st = check_budget(planned, w->plan, i, &h, used);
        if (st != ST_OK)
            return st;
    }
    return ST_OK;
}

static status print_plan(const struct plan *p)
{
    char *text = plan_format(p);
    if (!text) {
        log_error("no memory for the plan's text");
        return ST_NOMEM;
    }
    puts(text);
    free(text);
    return ST_OK;
}

static status show(const struct planned *planned, const struct worker_options *w, const struct plan_reasons *why)
{
    json_t *rows = json_array();
    status st = report(planned, w, why, rows);
    if (st == ST_OK)
        st = planned->format == TABLE_JSON ? print_plan(w->plan) : table_print(stdout, rows, planned->format);
    json_decref(rows);
    return st;
}

/* The candidates as a table. */
static status print_reasons(FILE *out, const struct plan_reasons *r, const struct plan *p)
{
    json_t *rows = json_array();
    status st = ST_OK;
    for (int i = 0; i < r->choice.n && st == ST_OK; i++) {
        const struct candidate *c = &r->choice.candidates[i];
        char used[96];
        plan_reasons_ranks(c, p->n_ranks, true, used, sizeof used);
        json_t *row = json_pack("{ss ss ss ss sb sf sf sf sb sb}", "split", plan_split_name(c->split), "ranks", used,
                                "heads", c->heads_cut ? "cut" : "stage", "residual", c->residual_all ? "all" : "home",
                                "gpus", c->gpus, "ms_per_token", cost_ms(&c->cost), "compute_ms", c->cost.compute_ms,
                                "wire_ms", c->cost.wire_ms, "fits", c->cost.fits, "best", i == r->choice.best);
        if (json_array_append_new(rows, row) != 0) {
            log_error("no memory for the table");
            st = ST_NOMEM;
        }
    }
    if (st == ST_OK)
        st = table_print(out, rows, TABLE_MD);
    json_decref(rows);
    return st;
}

/* What texts get that decode at once, if reading and messages are all that it takes. */
static void print_several(const struct plan_reasons *r, const struct plan *p)
{
    struct cost_model m = r->model;
    m.tokens = SOME_TEXTS;
    const struct cost cost = cost_of_plan(r->probe, &m, p);
    log_info("%d texts that decode at once: a step of one token each is estimated at %.2f ms or more, %.1f tok/s of "
             "all (of one text %.1f)", SOME_TEXTS, cost_ms(&cost), SOME_TEXTS * 1e3 / cost_ms(&cost),
             1e3 / cost_ms(&r->cost));
}

/* Opens and plans what the options say, for memory to be computed by. */
static status plan_ranks(const struct planned *planned, struct model **m, struct neurons **n, struct plan **p,
                         struct plan_reasons *reasons, struct worker_options *w)
{
    const struct cluster_options *o = &planned->o;
    int n_ranks;
    status st = count_ranks(o, &n_ranks);
    if (st == ST_OK)
        st = model_of_options(o, 0, m, n, &w->predictor);
    if (st == ST_OK)
        st = plan_of_options(o, *m, *n, n_ranks, p, reasons);
    if (st == ST_OK)
        st = kernels_select(o->kernels, &w->kernels);
    if (st != ST_OK)
        return st;
    w->model = *m;
    w->neurons = *n;
    w->plan = *p;
    w->devices = member_devices;
    w->n_devices = 1;
    w->sparse = o->sparse;
    w->skip_share = o->skip;
    return ST_OK;
}

/* What GPUs of this machine would get, as if all ranks ran here. devices [2]: room for their kind beside the CPU's. */
static status plan_gpus(const struct cluster_options *o, struct worker_options *w, struct plan *p,
                        const struct plan_reasons *why, const struct device_ops **devices)
{
    struct gpus gpus;
    struct wire_gpus offers[PLAN_MAX_RANKS];
    status st = ST_OK;
    plan_gpus_warn(o);
    if (!plan_may_use_gpus(o))
        return ST_OK;
    gpus_find(o->plugin_dir, &gpus);
    devices[0] = member_devices[0];
    devices[1] = gpus.n_usable ? gpus.plugin->ops : NULL;
    w->devices = devices;
    w->n_devices = gpus.n_usable ? 2 : 1;
    for (int r = 0; r < p->n_ranks && !o->plan && !st; r++)
        st = offload_offer(o, w, r, &gpus, why, &offers[r]);
    return st || o->plan ? st : offload_apply(p, offers, why, o->device == DEVICES_CUDA);
}

status command_plan(const struct launch *launch, int argc, char **argv)
{
    static const struct argp_option options[] = {
        {"output", 'o', "FORMAT", 0, "json: the plan itself (default); md or csv: a table of what each holder gets", 0},
        {0},
    };
    static const struct argp_child children[] = {{&argp_cluster, 0, NULL, 0}, {&argp_context, 0, NULL, 0}, {0}};
    static const struct argp argp = {
        .options = options, .parser = parse, .children = children,
        .doc = "Print the plan that these options make, as JSON: which rank holds what of the model. With --plan, "
               "check that plan against the model and print it. What each holder gets, and the memory that it needs, "
               "goes to standard error; -o md prints that as a table instead of the plan. With --probe, standard error "
               "also says what a token is estimated to take under every plan that was considered.\v"
               "Example: hearth plan -m model.gguf --ranks 2 --shares 3,1 > plan.json"};
    struct planned planned = {.o = cluster_defaults, .format = TABLE_JSON};
    const struct device_ops *devices[2];
    struct worker_options w = {0};
    struct model *m = NULL;
    struct neurons *n = NULL;
    struct plan *p = NULL;
    struct plan_reasons reasons = {0};
    planned.o.ranks = 0;
    status st = options_parse(&argp, launch, argc, argv, &planned);
    if (st != ST_OK || launch->rank > 0)
        return st;
    st = plan_ranks(&planned, &m, &n, &p, &reasons, &w);
    if (st == ST_OK) {
        w.n_threads = planned.o.threads; /* memory depends on them a little */
        if (w.n_threads == 0)
            w.n_threads = topology_usual_threads(launch, launch->mpi ? 1 : p->n_ranks);
        st = kv_settle(&planned.o, &w, NULL);
    }
    if (st == ST_OK)
        st = plan_gpus(&planned.o, &w, p, &reasons, devices);
    if (st == ST_OK) {
        plan_context_warn(m, w.n_ctx);
        plan_reasons_settle(&reasons, p);
        plan_reasons_log(&reasons, p, planned.o.quiet);
        st = planned.o.quiet ? ST_OK : print_reasons(stderr, &reasons, p);
    }
    if (st == ST_OK && reasons.probe && !planned.o.quiet)
        print_several(&reasons, p);
    if (st == ST_OK)
        st = show(&planned, &w, &reasons);
    plan_reasons_free(&reasons);
    plan_free(p);
    neurons_free(n);
    model_free(m);
    return st;
}
