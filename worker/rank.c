#include "worker/rank.h"

#include "base/log.h"

status check_answer(int from, const char *what, uint64_t step, const struct work *found, const struct task *t)
{
    static const char *const names[DEVICE_PARTS] = {"attention", "FFN", "output"};
    const struct work *w = &t->work;
    if (step == t->step->id && found->part == w->part && found->layer == w->layer && found->n == w->n)
        return ST_OK;
    log_error("%s from rank %d is of step %llu, %s of layer %d, %u tokens; expected %llu, %s of %d, %u", what, from,
              (unsigned long long)step, names[found->part], found->layer, found->n, (unsigned long long)t->step->id,
              names[w->part], w->layer, w->n);
    return ST_FORMAT;
}

size_t largest_answer(const struct rank *r, int to, int owner)
{
    const struct plan *p = r->o->plan;
    size_t most = 0;
    int first, last;
    plan_stage(p, p->residual_all ? plan_first_stage(p) : to, &first, &last);
    for (int i = first; i < last && to != owner; i++) {
        size_t attention = owns(r, DEVICE_ATTENTION, i, owner) ? wire_partial_max(&r->limits) : 0;
        size_t ffn = !owns(r, DEVICE_FFN, i, owner) ? 0
                     : plan_down_at_stage(p, i) ? wire_active_max(&r->limits, (uint32_t)rank_neurons(p, i, owner))
                                                : wire_partial_max(&r->limits);
        size_t size = ffn > attention ? ffn : attention;
        most = size > most ? size : most;
    }
    return p->residual_all && !plan_takes_part(p, to) ? 0 : most;
}

size_t largest_logits(const struct rank *r, int stage_rank, int owner)
{
    const int64_t rows = rank_rows(r->o->plan, &r->shape, owner);
    if (stage_rank != plan_last_stage(r->o->plan) || stage_rank == owner || !rows)
        return 0;
    return wire_logits_max((uint32_t)rows);
}
