/* What every process works on: the model, its layers of it, and its checkpoint. */
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "base/log.h"
#include "node/planning.h"
#include "prepare/count.h"
#include "prepare/inside.h"
#include "sparsity/fit/linear.h"

static status own_layers(struct prepare *p)
{
    struct cluster_options o = p->o->cluster;
    struct plan_reasons reasons;
    struct plan *plan;
    p->last = p->model->hp.n_layers;
    if (!p->link)
        return ST_OK;
    o.split = SPLIT_STAGES;
    o.observe = counter_observe; /* the plan of the runs that count: what GPUs would get is not in it */
    status st = plan_of_options(&o, p->model, NULL, link_ranks(p->link), &plan, &reasons);
    if (!st) {
        plan_stage(plan, link_rank(p->link), &p->first, &p->last);
        plan_reasons_free(&reasons);
        plan_free(plan);
    }
    return st;
}

status prepare_open_model(struct prepare *p)
{
    status st = kernels_select(p->o->cluster.kernels, &p->kernels);
    if (!st)
        st = model_load(p->o->cluster.model, &p->model);
    if (!st && p->o->mlp_percent > 0 && !p->model->hp.n_experts)
        st = linear_open(); /* not after hours of counting */
    if (st)
        return st;
    p->neurons = p->o->cluster.neurons && *p->o->cluster.neurons ? strdup(p->o->cluster.neurons)
                                                           : neurons_path(p->o->cluster.model);
    if (!p->neurons) {
        log_error("no memory for the name of the neuron file");
        return ST_NOMEM;
    }
    p->part_path = name_beside(p->neurons, ".part", p->launch->rank);
    st = p->part_path ? prepare_check_place(p->neurons) : ST_NOMEM;
    return st ? st : own_layers(p);
}

status prepare_open_part(struct prepare *p, const struct task_open *t)
{
    const struct hparams *hp = &p->model->hp;
    struct part_shape shape = {.first = p->first, .last = p->last, .d_model = hp->d_model, .d_ff = hp->d_ff,
                               .n_windows = t->n_windows, .n_samples = t->n_samples};
    if (hp->n_experts) {
        shape.n_experts = hp->n_experts;
        shape.n_used = hp->n_experts_used;
        shape.n_weights = model_route_weights(hp);
    }
    bool resumed;
    memcpy(shape.settings, t->settings, sizeof shape.settings);
    p->stride = t->stride;
    p->window_tokens = t->window_tokens;
    status st = part_open(p->part_path, &shape, p->kernels, &resumed, &p->part);
    if (!st)
        p->worked_s = part_state(p->part)->seconds;
    return st;
}

status prepare_save(struct prepare *p)
{
    part_state(p->part)->seconds = p->worked_s + clock_s() - p->started_s;
    return part_save(p->part);
}
