#include "node/offload.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "node/kv.h"
#include "sparsity/neurons.h"
#include "wire/wire.h"

static double mib(uint64_t bytes) { return (double)bytes / (1 << 20); }

/* What neurons fire, layer by layer; NULL: not known, or it is all the same. */
static const float **list_fired(const struct worker_options *w)
{
    const int n = w->neurons && w->sparse != SPARSE_DENSE ? w->neurons->n_layers : 0;
    const float **fired = n ? malloc((size_t)n * sizeof *fired) : NULL;
    for (int l = 0; l < n && fired; l++) {
        fired[l] = w->neurons->layers[l].fired;
        if (!fired[l]) {
            free(fired);
            fired = NULL;
        }
    }
    return fired;
}

/* Gives a rank's GPU what was chosen; fired: where it has `units`. */
static status give(struct plan *p, int rank, int gpu, const struct wire_gpu *chosen, const float *const *fired)
{
    char device[PLAN_DEVICE_BYTES];
    snprintf(device, sizeof device, "cuda:%d", gpu % WIRE_GPUS_MOST);
    const int all = plan_count_layers(p, rank) + 1;
    status st = plan_offload(p, rank, device, chosen->layers ? (int)chosen->layers : all);
    return st || chosen->layers ? st : plan_keep_hot(p, p->n_holders - 1, fired, chosen->units);
}

/* ---- what fits ---- */

struct fitting {
    const struct worker_options *w; /* with a plan for CPUs alone */
    int rank, gpu;
    uint64_t room;                  /* bytes */
    const float **fired;            /* NULL: n is of whole layers; else of units, that fire most often */
};

/* What the GPU needs if it has n of them. */
static status need_of(const struct fitting *f, int n, struct worker_memory *need)
{
    const struct wire_gpu chosen = {.layers = f->fired ? 0 : (uint32_t)n, .units = f->fired ? (uint32_t)n : 0};
    struct worker_options w = *f->w;
    struct plan *trial = plan_copy(f->w->plan);
    if (!trial)
        return ST_NOMEM;
    status st = give(trial, f->rank, f->gpu, &chosen, f->fired);
    w.plan = trial;
    st = st ? st : worker_memory(&w, trial->n_holders - 1, need);
    plan_free(trial);
    return st;
}

/* The most, up to `most`, that there is room for: *n. */
static status fit(const struct fitting *f, int most, int *n)
{
    int low = 0, high = most + 1; /* low fits, high does not */
    while (high - low > 1) {
        const int middle = low + (high - low) / 2;
        struct worker_memory need;
        status st = need_of(f, middle, &need);
        if (st)
            return st;
        *(need.total <= f->room ? &low : &high) = middle;
    }
    *n = low;
    return ST_OK;
}

/* Where not all layers fit and it is known which neurons fire, and only those are computed: attention, keys and values of
 * all layers, and the neurons that fire most often. 0: there is no room for any. */
static status fit_hot(const struct fitting *whole, int *n)
{
    struct fitting f = *whole;
    const int64_t units = plan_count_units(f.w->plan, f.rank);
    status st = ST_OK;
    *n = 0;
    f.fired = units && units < INT32_MAX && !plan_down_at_stage(f.w->plan, 0) ? list_fired(f.w) : NULL;
    if (f.fired)
        st = fit(&f, (int)units - 1, n);
    free(f.fired);
    return st;
}

/* Says that n layers do not fit, and how many do. */
static status refuse(const struct cluster_options *o, const struct fitting *f, const struct gpu_info *gpu, int n, int fits)
{
    struct worker_memory need;
    char kv[KV_TEXT], instead[96] = "a shorter context (-c), less KV memory (--kv-budget) or --device cpu";
    status st = need_of(f, n, &need);
    if (st)
        return st;
    if (fits)
        snprintf(instead, sizeof instead, "-ngl %d fits", fits);
    log_error("%d layers on cuda:%d (%s) need %.1f MiB (weights %.1f, KV cache of %s %.1f, buffers %.1f), %s %.1f: %s", n,
              f->gpu, gpu->name, mib(need.total), mib(need.weights), kv_text(f->w, kv), mib(need.kv), mib(need.buffers),
              o->vram_budget && f->room == o->vram_budget ? "the budget is" : "what is free there is", mib(f->room),
              instead);
    return ST_BUDGET;
}

static uint64_t room_of(const struct cluster_options *o, const struct gpu_info *gpu)
{
    const uint64_t room = gpu->free_bytes > OFFLOAD_SPARE_BYTES ? gpu->free_bytes - OFFLOAD_SPARE_BYTES : 0;
    return o->vram_budget && o->vram_budget < gpu->free_bytes ? o->vram_budget : room;
}

/* What one of a rank's GPUs is given: the layers asked for, and the output rows count as one more. */
static status offer(const struct cluster_options *o, const struct worker_options *w, int rank, const struct gpus *g,
                    int gpu, struct wire_gpu *out)
{
    const struct fitting f = {w, rank, gpu, room_of(o, &g->at[gpu]), NULL};
    const int all = plan_count_layers(w->plan, rank) + 1;
    const int wanted = o->gpu_layers >= 0 && o->gpu_layers < all ? o->gpu_layers : all;
    int fits, units = 0;
    status st = fit(&f, wanted, &fits);
    if (!st && fits < wanted && o->gpu_layers < 0)
        st = fit_hot(&f, &units);
    if (st)
        return st;
    if (fits < wanted && (o->gpu_layers >= 0 || (o->vram_budget && !fits && !units)))
        return refuse(o, &f, &g->at[gpu], o->gpu_layers >= 0 ? wanted : 1, fits);
    memcpy(out->id, g->at[gpu].id, sizeof out->id);
    out->layers = units ? 0 : (uint32_t)fits;
    out->units = (uint32_t)units;
    return ST_OK;
}

static status no_gpu(const struct cluster_options *o, int rank, const char *why)
{
    if (o->device == DEVICES_CUDA) {
        log_error("--device cuda: %s", why);
        return ST_USAGE;
    }
    if ((o->gpu_layers > 0 || o->vram_budget) && rank == 0)
        log_warn("everything runs on the CPU: %s", why);
    return ST_OK;
}

status offload_offer(const struct cluster_options *o, const struct worker_options *w, int rank, const struct gpus *g,
                     struct wire_gpus *out)
{
    status st = ST_OK;
    *out = (struct wire_gpus){0};
    if (g->n_usable == 0)
        return no_gpu(o, rank, g->why);
    if (plan_takes_part(w->plan, rank))
        for (; out->n < (uint32_t)g->n && !st; out->n++)
            st = g->at[out->n].capability ? offer(o, w, rank, g, (int)out->n, &out->at[out->n]) : ST_OK;
    return st;
}

status offload_needs(const struct worker_options *w, int rank, const struct gpus *g, struct wire_gpus *out)
{
    *out = (struct wire_gpus){0};
    for (int h = 0; h < plan_n_holders(w->plan); h++) {
        const struct gpu_info *gpu = gpus_of(g, w->plan, h);
        struct wire_gpu *to = &out->at[out->n];
        struct worker_memory need;
        if (!gpu || plan_holder_rank(w->plan, h) != rank)
            continue;
        status st = worker_memory(w, h, &need);
        if (!st && need.total > gpu->free_bytes) {
            log_error("%s of rank %d (%s) needs %.1f MiB by the plan, %.1f are free: give it fewer layers or neurons, or a "
                      "shorter context (-c)", plan_holder_device(w->plan, h), rank, gpu->name, mib(need.total),
                      mib(gpu->free_bytes));
            st = ST_BUDGET;
        }
        if (st)
            return st;
        *to = (struct wire_gpu){.need_bytes = need.total, .free_bytes = gpu->free_bytes};
        memcpy(to->id, gpu->id, sizeof to->id);
        out->n++;
    }
    return ST_OK;
}

/* ---- what others have ---- */

static bool same_gpu(const struct wire_gpu *a, const struct wire_gpu *b)
{
    return memcmp(a->id, b->id, sizeof a->id) == 0;
}

/* The rank's first GPU that no rank before it has; n: none. */
static uint32_t choose(const struct wire_gpus *offers, const uint32_t *chosen, int rank)
{
    uint32_t i = 0;
    for (; i < offers[rank].n; i++) {
        bool taken = !offers[rank].at[i].layers && !offers[rank].at[i].units;
        for (int r = 0; r < rank && !taken; r++)
            taken = chosen[r] < offers[r].n && same_gpu(&offers[r].at[chosen[r]], &offers[rank].at[i]);
        if (!taken)
            break;
    }
    return i;
}

static status all_taken(int rank)
{
    log_error("--device cuda: every GPU of rank %d is another rank's on the same host, or has no room: start fewer ranks "
              "there, or name GPUs in a plan (--plan)", rank);
    return ST_USAGE;
}

/* Whether a rank can have so much: its message may say anything. */
static status check_chosen(const struct plan *p, int rank, const struct wire_gpu *gpu)
{
    const int64_t units = plan_down_at_stage(p, 0) ? 0 : plan_count_units(p, rank);
    const int64_t most = gpu->layers ? plan_count_layers(p, rank) + 1 : units;
    const int64_t n = gpu->layers ? gpu->layers : gpu->units;
    if (n <= most)
        return ST_OK;
    log_error("rank %d gives its GPU %lld %s, expected %lld at most: start all ranks with the same options", rank,
              (long long)n, gpu->layers ? "layers" : "units of neurons", (long long)most);
    return ST_MISMATCH;
}

status offload_apply(const struct worker_options *w, struct plan *p, const struct wire_gpus *offers, bool all)
{
    const float **fired = list_fired(w);
    uint32_t chosen[PLAN_MAX_RANKS];
    status st = ST_OK;
    for (int r = 0; r < p->n_ranks && !st; r++) {
        const struct wire_gpu *gpu = &offers[r].at[chosen[r] = choose(offers, chosen, r)];
        if (chosen[r] == offers[r].n) {
            st = all && offers[r].n ? all_taken(r) : ST_OK;
        } else if (gpu->units && !fired) {
            log_error("rank %d gives its GPU the neurons that fire most often, and there is no neuron file here that says "
                      "which: copy it to every host, or give it to none (--neurons)", r);
            st = ST_MISMATCH;
        } else {
            st = check_chosen(p, r, gpu);
            st = st ? st : give(p, r, (int)chosen[r], gpu, fired);
        }
    }
    free(fired);
    return st;
}

/* What rank r's i-th GPU has to hold for all ranks. */
static uint64_t need_of_all(const struct wire_gpus *offers, int n_ranks, int r, uint32_t i)
{
    uint64_t sum = 0;
    for (int other = 0; other < n_ranks; other++)
        for (uint32_t k = 0; k < offers[other].n; k++)
            if (same_gpu(&offers[other].at[k], &offers[r].at[i]) &&
                __builtin_add_overflow(sum, offers[other].at[k].need_bytes, &sum))
                sum = UINT64_MAX;
    return sum;
}

status offload_check(const struct wire_gpus *offers, int n_ranks)
{
    for (int r = 0; r < n_ranks; r++) {
        for (uint32_t i = 0; i < offers[r].n; i++) {
            const uint64_t need = need_of_all(offers, n_ranks, r, i);
            if (need <= offers[r].at[i].free_bytes)
                continue;
            log_error("a GPU of rank %d needs %.1f MiB for all ranks that the plan gives it to, %.1f are free: give each "
                      "rank a GPU of its own", r, mib(need), mib(offers[r].at[i].free_bytes));
            return ST_BUDGET;
        }
    }
    return ST_OK;
}
