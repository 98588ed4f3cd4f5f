/* hearth plan: shows or checks which rank holds what. */
#include <stdlib.h>
#include "base/log.h"
#include "cli/command.h"
#include "cli/options.h"
#include "cli/planning.h"
#include "cli/topology.h"
#include "worker/worker.h"

static error_t parse(int key, char *arg, struct argp_state *state)
{
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = state->child_inputs[1] = state->input;
        return 0;
    case ARGP_KEY_ARG:
        return option_wrong(state, "'%s' belongs to no option", arg);
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static double mib(uint64_t bytes)
{
    return (double)bytes / (1 << 20);
}

/* As many as --ranks says; else as the plan or the shares have. */
static status count_ranks(const struct cluster_options *o, int *n_ranks)
{
    double shares[PLAN_MAX_RANKS];
    struct plan *p;
    *n_ranks = o->ranks;
    if (o->ranks > 0)
        return ST_OK;
    *n_ranks = 1;
    if (o->shares)
        return options_shares(o->shares, shares, PLAN_MAX_RANKS, n_ranks);
    if (!o->plan)
        return ST_OK;
    status st = plan_load(o->plan, &p);
    if (st != ST_OK)
        return st;
    *n_ranks = p->n_ranks;
    plan_free(p);
    return ST_OK;
}

/* What rank `r` gets, and the memory that it will need; ST_BUDGET (logged) if that is more than it may use. */
static status report_rank(const struct worker_options *w, const struct cluster_options *o, int r)
{
    const struct plan *p = w->plan;
    struct worker_memory need;
    int64_t neurons = 0;
    int first, last;
    status st = worker_memory(w, r, &need);
    if (st != ST_OK)
        return st;
    plan_stage(p, r, &first, &last);
    for (int l = 0; l < p->model.n_layers; l++)
        neurons += plan_n_neurons(p, l, r);
    char stage[48] = "no stage";
    if (last > first)
        snprintf(stage, sizeof stage, "stage of layers %d to %d", first, last - 1);
    if (!o->quiet)
        log_info("rank %d: %s, %lld neurons, %.1f MiB (weights %.1f, KV cache of %u tokens %.1f, buffers %.1f)", r,
                 stage, (long long)neurons, mib(need.total), mib(need.weights), w->n_ctx, mib(need.kv),
                 mib(need.buffers));
    if (o->ram_budget == 0 || need.total <= o->ram_budget)
        return ST_OK;
    log_error("rank %d needs %.1f MiB of memory, the budget is %.1f (--ram-budget)", r, mib(need.total),
              mib(o->ram_budget));
    return ST_BUDGET;
}

static status report(const struct cluster_options *o, const struct model *m, const struct plan *p)
{
    uint32_t n_ctx = plan_context(o, m);
    struct worker_options w = {
        .model = m, .plan = p, .n_threads = o->threads, .n_ctx = n_ctx,
        .n_batch = o->n_batch < n_ctx ? o->n_batch : n_ctx,
    };
    status st = kernels_select(o->kernels, &w.kernels);
    for (int r = 0; r < p->n_ranks && st == ST_OK; r++)
        st = report_rank(&w, o, r);
    return st;
}

status command_plan(const struct launch *launch, int argc, char **argv)
{
    static const struct argp_child children[] = {{&argp_cluster, 0, NULL, 0}, {&argp_context, 0, NULL, 0}, {0}};
    static const struct argp argp = {
        .parser = parse, .children = children,
        .doc = "Print the plan that these options make, as JSON: which rank holds what of the model. With --plan, "
               "check that plan against the model and print it. What each rank gets, and the memory that it will need, "
               "goes to standard error.\vExample: hearth plan -m model.gguf --ranks 2 --shares 3,1 > plan.json"};
    struct cluster_options o = cluster_defaults;
    struct model *m = NULL;
    struct plan *p = NULL;
    char *text = NULL;
    int n_ranks;
    o.ranks = 0;
    status st = options_parse(&argp, launch, argc, argv, &o);
    if (st != ST_OK || launch->rank > 0)
        return st;
    st = count_ranks(&o, &n_ranks);
    if (st == ST_OK)
        st = model_load(o.model, &m);
    if (st == ST_OK)
        st = plan_of_options(&o, m, NULL, n_ranks, &p);
    if (st != ST_OK)
        goto done;
    text = plan_format(p);
    if (!text) {
        log_error("no memory for the plan's text");
        st = ST_NOMEM;
        goto done;
    }
    topology_settle(launch, n_ranks, &o.threads); /* memory depends on the threads a little */
    st = report(&o, m, p);
    if (st == ST_OK)
        puts(text);
done:
    free(text);
    plan_free(p);
    model_free(m);
    return st;
}
