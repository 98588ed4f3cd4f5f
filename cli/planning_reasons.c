/* Telling people why a plan is as it is. */
#include <stdio.h>
#include <string.h>
#include "base/log.h"
#include "cli/planning.h"
#include "cli/table.h"

enum { NAME_MAX_BYTES = 96 };

/* "0, 2, 3", cut short where there are many. */
static void list_ranks(const struct candidate *c, int n_ranks, bool used, char *out, size_t n)
{
    size_t at = 0;
    out[0] = '\0';
    for (int r = 0; r < n_ranks && at < n - 8; r++)
        if ((c->shares[r] > 0) == used)
            at += (size_t)snprintf(out + at, n - at, "%s%d", at ? ", " : "", r);
    if (at >= n - 8)
        snprintf(out + at, n - at, " ...");
}

static const char *split_name(enum plan_split split)
{
    static const char *const names[] = {[SPLIT_STAGES] = "stages", [SPLIT_SHARDS] = "shards", [SPLIT_BOTH] = "both",
                                        [SPLIT_HOT] = "hot"};
    return names[split];
}

void plan_reasons_log(const struct plan_reasons *r, const struct plan *p, bool quiet)
{
    if (r->choice.n == 0)
        return;
    const double much = 1.05; /* estimates are no closer than that */
    const struct candidate *best = &r->choice.candidates[r->choice.best];
    const double best_ms = cost_ms(&best->cost), own_ms = cost_ms(&r->cost);
    char used[NAME_MAX_BYTES], left_out[NAME_MAX_BYTES];
    list_ranks(best, p->n_ranks, true, used, sizeof used);
    list_ranks(best, p->n_ranks, false, left_out, sizeof left_out);
    if (own_ms > much * best_ms && best->cost.fits)
        log_warn("this plan is estimated at %.2f ms a token, --split %s over rank%s %s at %.2f", own_ms,
                 split_name(best->split), best->n_used > 1 ? "s" : "", used, best_ms);
    else if (!quiet && best->n_used < p->n_ranks && own_ms <= best_ms)
        log_info("a token is estimated at %.2f ms; rank%s %s would make it slower and get nothing", own_ms,
                 p->n_ranks - best->n_used > 1 ? "s" : "", left_out);
    else if (!quiet)
        log_info("a token is estimated at %.2f ms, of which the wire is %.2f", own_ms, r->cost.wire_ms);
    if (!best->cost.fits)
        log_warn("no plan that was considered fits into the memory that the probe found");
}

status plan_reasons_print(FILE *out, const struct plan_reasons *r, const struct plan *p)
{
    json_t *rows = json_array();
    status st = ST_OK;
    for (int i = 0; i < r->choice.n && st == ST_OK; i++) {
        const struct candidate *c = &r->choice.candidates[i];
        char used[NAME_MAX_BYTES];
        list_ranks(c, p->n_ranks, true, used, sizeof used);
        json_t *row = json_pack("{ss ss ss ss sf sf sf sb sb}", "split", split_name(c->split), "ranks", used, "heads",
                                c->heads_cut ? "cut" : "stage", "residual", c->residual_all ? "all" : "home",
                                "ms_per_token", cost_ms(&c->cost), "compute_ms", c->cost.compute_ms, "wire_ms",
                                c->cost.wire_ms, "fits", c->cost.fits, "best", i == r->choice.best);
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
