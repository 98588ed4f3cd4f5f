/* Which plan to make: the candidates and their costs. */
#include <string.h>

#include "placement/gpu_benefit.h"

struct chooser {
    const struct probe *p;
    const struct cost_model *m;
    const struct plan_model *shape;
    struct choice *out;
};

status candidate_plan(const struct candidate *c, const struct plan_model *shape, int n_ranks, struct plan **out)
{
    struct plan *p;
    status st = plan_make(shape, c->split, n_ranks, c->shares, &p);
    if (st != ST_OK)
        return st;
    for (int l = 0; l < p->model.n_layers && !c->heads_cut; l++)
        p->layers[l].heads_cut = false;
    if (c->residual_all && (st = plan_set_residual(p, true)) != ST_OK) {
        plan_free(p);
        return st;
    }
    *out = p;
    return ST_OK;
}

static bool better(const struct cost *a, const struct cost *b)
{
    return a->fits != b->fits ? a->fits : cost_ms(a) < cost_ms(b);
}

/* As the CPUs would run it, or with what their GPUs get, whichever is better. */
static status cost_candidate(const struct chooser *c, struct candidate *out)
{
    struct plan *plan;
    status st = candidate_plan(out, c->shape, c->p->n_ranks, &plan);
    if (st != ST_OK)
        return st;
    out->cost = cost_of_plan(c->p, c->m, plan);
    out->gpus = false;
    if (c->m->gpus && (st = gpu_benefit_give_all(c->p, c->m, plan)) == ST_OK && plan_n_holders(plan) > c->p->n_ranks) {
        const struct cost with = cost_of_plan(c->p, c->m, plan);
        out->gpus = better(&with, &out->cost);
        out->cost = out->gpus ? with : out->cost;
    }
    plan_free(plan);
    return st;
}

/* The best way to split so: heads cut or not, residual stream at home or on all. */
static status estimate(const struct chooser *c, enum plan_split split, const double *shares, struct candidate *out)
{
    const int n = c->p->n_ranks;
    struct candidate try = {.split = split}, best = {0};
    bool found = false;
    memcpy(try.shares, shares, (size_t)n * sizeof *shares);
    for (int r = 0; r < n; r++)
        try.n_used += shares[r] > 0;
    const bool several = try.n_used > 1 && split != SPLIT_STAGES;
    const bool may_share = several && split == SPLIT_SHARDS && c->m->residual != 0;
    const bool may_home = !may_share || c->m->residual != 1;
    for (int way = 0; way < 4; way++) {
        try.heads_cut = way & 1;
        try.residual_all = way >> 1;
        if ((try.heads_cut && !several) || !(try.residual_all ? may_share : may_home))
            continue;
        status st = cost_candidate(c, &try);
        if (st != ST_OK)
            return st;
        if (!found || better(&try.cost, &best.cost))
            best = try;
        found = true;
    }
    *out = best;
    return ST_OK;
}

/* Over the ranks in use, filled in the way that is best. */
static status estimate_filled(const struct chooser *c, enum plan_split split, const bool *used, struct candidate *out)
{
    bool found = false;
    for (int how = 0; how < COST_FILLINGS; how++) {
        double shares[PLAN_MAX_RANKS];
        struct candidate one;
        const bool apart = how == FILL_ONE_BY_ONE || how == FILL_FASTEST; /* ranks one after the other */
        if ((apart && split != SPLIT_STAGES) || !cost_shares(c->p, c->m, used, (enum cost_filling)how, shares))
            continue;
        status st = estimate(c, split, shares, &one);
        if (st != ST_OK)
            return st;
        if (!found || better(&one.cost, &out->cost))
            *out = one;
        found = true;
    }
    return ST_OK;
}

/* shares NULL: by what the ranks in use have. */
static status add(struct chooser *c, enum plan_split split, const double *shares, const bool *used)
{
    struct choice *o = c->out;
    struct candidate *to = &o->candidates[o->n];
    status st = shares ? estimate(c, split, shares, to) : estimate_filled(c, split, used, to);
    if (st == ST_OK)
        o->n++;
    return st;
}

/* The rank not yet in use that makes shards fastest, the lower one among equals: *rank, -1 if all are; and those
 * shards. */
static status next_rank(const struct chooser *c, const bool *used, int *rank, struct candidate *best)
{
    *rank = -1;
    for (int r = 1; r < c->p->n_ranks; r++) {
        bool with[PLAN_MAX_RANKS];
        struct candidate found;
        if (used[r])
            continue;
        memcpy(with, used, sizeof with);
        with[r] = true;
        status st = estimate_filled(c, SPLIT_SHARDS, with, &found);
        if (st != ST_OK)
            return st;
        if (*rank < 0 || cost_ms(&found.cost) < cost_ms(&best->cost)) {
            *best = found;
            *rank = r;
        }
    }
    return ST_OK;
}

/* Shards over 1, 2, ... ranks. */
static status add_shards(struct chooser *c)
{
    bool used[PLAN_MAX_RANKS] = {[0] = true};
    int rank = 0;
    status st = add(c, SPLIT_SHARDS, NULL, used);
    while (st == ST_OK) {
        st = next_rank(c, used, &rank, &c->out->candidates[c->out->n]);
        if (st != ST_OK || rank < 0)
            break;
        used[rank] = true;
        c->out->n++;
    }
    return st;
}

status cost_choose(const struct probe *p, const struct cost_model *m, const struct plan_model *shape,
                   const double *shares, struct choice *out)
{
    struct chooser c = {p, m, shape, out};
    bool all[PLAN_MAX_RANKS];
    out->n = out->best = 0;
    for (int r = 0; r < p->n_ranks; r++)
        all[r] = true;
    status st = shares ? add(&c, SPLIT_SHARDS, shares, all) : add_shards(&c);
    if (st == ST_OK && p->n_ranks > 1)
        st = add(&c, SPLIT_STAGES, shares, all);
    if (st == ST_OK && p->n_ranks > 1)
        st = add(&c, SPLIT_BOTH, shares, all);
    for (int i = 1; i < out->n; i++)
        if (better(&out->candidates[i].cost, &out->candidates[out->best].cost))
            out->best = i;
    return st;
}
