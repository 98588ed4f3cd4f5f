#include "node/kv.h"

#include <stdio.h>
#include "base/log.h"
#include "node/planning.h"
#include "wire/runs.h"

static uint64_t pages_of_one(const struct worker_options *w)
{
    return ((uint64_t)w->n_ctx + WIRE_PAGE - 1) / WIRE_PAGE;
}

/* Of one page: on the rank that has most of each, on all its devices, and on all ranks together. */
static status count_page(const struct worker_options *w, uint64_t *largest, int *rank, uint64_t *all)
{
    uint64_t of_rank[PLAN_MAX_RANKS] = {0};
    struct worker_options one = *w;
    one.n_pages = 1;
    *largest = *all = 0;
    *rank = 0;
    for (int h = 0; h < plan_n_holders(w->plan); h++) {
        const int r = plan_holder_rank(w->plan, h);
        struct worker_memory need;
        status st = worker_memory(&one, h, &need);
        if (st)
            return st;
        *all += need.kv;
        of_rank[r] += need.kv;
        if (of_rank[r] > *largest) {
            *largest = of_rank[r];
            *rank = r;
        }
    }
    return ST_OK;
}

status kv_settle(const struct cluster_options *o, struct worker_options *w, uint64_t *page_bytes)
{
    uint64_t largest, all;
    int rank;
    w->n_ctx = plan_context(o, w->model);
    w->n_sequences = o->n_sequences ? o->n_sequences : 1;
    const uint32_t full = o->kv_sequences && o->kv_sequences < w->n_sequences ? o->kv_sequences : w->n_sequences;
    const uint64_t most = pages_of_one(w) * w->n_sequences, tokens = (uint64_t)w->n_ctx * w->n_sequences;
    w->n_batch = o->n_batch < tokens ? o->n_batch : (uint32_t)tokens;
    status st = count_page(w, &largest, &rank, &all);
    if (st)
        return st;
    const uint64_t fit = o->kv_budget && largest ? o->kv_budget / largest : pages_of_one(w) * full;
    w->n_pages = (uint32_t)(fit < most ? fit : most);
    if (w->n_pages < pages_of_one(w)) {
        log_error("a context of %u tokens (-c) takes %.1f MiB of KV memory on rank %d, --kv-budget is %.1f", w->n_ctx,
                  (double)(pages_of_one(w) * largest) / (1 << 20), rank, (double)o->kv_budget / (1 << 20));
        return ST_BUDGET;
    }
    if (page_bytes)
        *page_bytes = all;
    return ST_OK;
}

const char *kv_text(const struct worker_options *w, char out[KV_TEXT])
{
    const uint64_t tokens = (uint64_t)w->n_pages * WIRE_PAGE;
    if (w->n_sequences == 1)
        snprintf(out, KV_TEXT, "%u tokens", w->n_ctx);
    else if (w->n_pages == pages_of_one(w) * w->n_sequences)
        snprintf(out, KV_TEXT, "%u sequences of %u tokens", w->n_sequences, w->n_ctx);
    else
        snprintf(out, KV_TEXT, "%u sequences, %llu tokens together", w->n_sequences, (unsigned long long)tokens);
    return out;
}
