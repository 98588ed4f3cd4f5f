/* Telling people why a plan is as it is. */
#include <stdio.h>
#include <string.h>
#include "base/log.h"
#include "node/planning.h"

enum { NAME_MAX_BYTES = 96 };

void plan_reasons_ranks(const struct candidate *c, int n_ranks, bool used, char *out, size_t n)
{
    size_t at = 0;
    out[0] = '\0';
    for (int r = 0; r < n_ranks && at < n - 8; r++)
        if ((c->shares[r] > 0) == used)
            at += (size_t)snprintf(out + at, n - at, "%s%d", at ? ", " : "", r);
    if (at >= n - 8)
        snprintf(out + at, n - at, " ...");
}

const char *plan_split_name(enum plan_split split)
{
    static const char *const names[] = {[SPLIT_STAGES] = "stages", [SPLIT_SHARDS] = "shards", [SPLIT_BOTH] = "both",
                                        [SPLIT_HOT] = "hot"};
    return names[split];
}

void plan_reasons_settle(struct plan_reasons *r, const struct plan *p)
{
    if (r->probe)
        r->cost = cost_of_holders(r->probe, &r->model, p, r->ms);
}

void plan_reasons_log(const struct plan_reasons *r, const struct plan *p, bool quiet)
{
    if (r->choice.n == 0)
        return;
    const double much = 1.05; /* estimates are no closer than that */
    const struct candidate *best = &r->choice.candidates[r->choice.best];
    const double best_ms = cost_ms(&best->cost), own_ms = cost_ms(&r->cost);
    char used[NAME_MAX_BYTES], left_out[NAME_MAX_BYTES];
    plan_reasons_ranks(best, p->n_ranks, true, used, sizeof used);
    plan_reasons_ranks(best, p->n_ranks, false, left_out, sizeof left_out);
    if (own_ms > much * best_ms && best->cost.fits)
        log_warn("this plan is estimated at %.2f ms a token, --split %s over rank%s %s%s at %.2f", own_ms,
                 plan_split_name(best->split), best->n_used > 1 ? "s" : "", used,
                 best->gpus ? " with GPUs" : p->n_holders > p->n_ranks ? " with CPUs alone" : "", best_ms);
    else if (!quiet && best->n_used < p->n_ranks && own_ms <= best_ms)
        log_info("a token is estimated at %.2f ms; rank%s %s would make it slower and get nothing", own_ms,
                 p->n_ranks - best->n_used > 1 ? "s" : "", left_out);
    else if (!quiet)
        log_info("a token is estimated at %.2f ms, of which the wire is %.2f", own_ms, r->cost.wire_ms);
    for (int h = p->n_ranks; h < p->n_holders && !quiet; h++)
        if (r->ms[h] > 0)
            log_info("%s of rank %d computes for %.2f ms of a token, its CPU for %.2f", p->holders[h].device,
                     p->holders[h].rank, r->ms[h], r->ms[p->holders[h].rank]);
    if (!best->cost.fits)
        log_warn("no plan that was considered fits into the memory that the probe found");
}
