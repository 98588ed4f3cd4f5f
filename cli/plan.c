/* hearth plan: shows or checks which rank holds what. */
#include <stdlib.h>
#include "base/log.h"
#include "cli/command.h"
#include "cli/options.h"
#include "cli/planning.h"

static error_t parse(int key, char *arg, struct argp_state *state)
{
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = state->input;
        return 0;
    case ARGP_KEY_ARG:
        return option_wrong(state, "'%s' belongs to no option", arg);
    default:
        return ARGP_ERR_UNKNOWN;
    }
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

static void report(const struct plan *p)
{
    for (int r = 0; r < p->n_ranks; r++) {
        int first, last;
        int64_t neurons = 0;
        plan_stage(p, r, &first, &last);
        for (int l = 0; l < p->model.n_layers; l++)
            neurons += p->layers[l].bound[r + 1] - p->layers[l].bound[r];
        char stage[48] = "no layer's stage";
        if (last > first)
            snprintf(stage, sizeof stage, "the stage of layers %d to %d", first, last - 1);
        log_info("rank %d: %s, %lld neurons", r, stage, (long long)neurons);
    }
}

status command_plan(const struct launch *launch, int argc, char **argv)
{
    static const struct argp_child children[] = {{&argp_cluster, 0, NULL, 0}, {0}};
    static const struct argp argp = {
        .parser = parse, .children = children,
        .doc = "Print the plan that these options make, as JSON: which rank holds what of the model. With --plan, check "
               "that plan against the model and print it. What each rank gets goes to standard error.\vExample: "
               "hearth plan -m model.gguf --ranks 2 --shares 3,1 > plan.json"};
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
        st = plan_of_options(&o, m, n_ranks, &p);
    if (st != ST_OK)
        goto done;
    text = plan_format(p);
    if (!text) {
        log_error("no memory for the plan's text");
        st = ST_NOMEM;
        goto done;
    }
    puts(text);
    if (!o.quiet)
        report(p);
done:
    free(text);
    plan_free(p);
    model_free(m);
    return st;
}
