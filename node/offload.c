#include "node/offload.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "node/kv.h"
#include "placement/gpu_benefit.h"
#include "sparsity/neurons.h"
#include "wire/wire.h"

static double mib(uint64_t bytes) { return (double)bytes / (1 << 20); }

/* Gives a rank's GPU what was chosen. */
static status give(struct plan *p, int rank, int gpu, const struct wire_gpu *chosen, const struct plan_reasons *why)
{
    char device[PLAN_DEVICE_BYTES];
    snprintf(device, sizeof device, "cuda:%d", gpu % WIRE_GPUS_MOST);
    const int all = plan_count_layers(p, rank) + 1;
    if (chosen->bytes)
        return gpu_benefit_give(why->probe, &why->model, p, rank, device, (double)chosen->bytes);
    status st = plan_offload(p, rank, device, chosen->layers ? (int)chosen->layers : all);
    return st || chosen->layers ? st : plan_keep_marked(p, p->n_holders - 1, why->marks);
}

/* Whether the probe has measured this GPU. */
static bool is_measured(const struct plan_reasons *why, int rank, int gpu)
{
    char device[PLAN_DEVICE_BYTES];
    snprintf(device, sizeof device, "cuda:%d", gpu % WIRE_GPUS_MOST);
    return why->probe && rank < why->probe->n_ranks && cost_gpu(why->probe, rank, device);
}

/* ---- what fits ---- */

struct fitting {
    const struct worker_options *w; /* with a plan for CPUs alone */
    int rank, gpu;
    uint64_t room;                  /* bytes */
    const struct plan_reasons *why;
};

/* What the GPU needs if it has what is chosen; 0: that is nothing. */
static status need_of_choice(const struct fitting *f, const struct wire_gpu *chosen, struct worker_memory *need)
{
    struct worker_options w = *f->w;
    struct plan *trial = plan_copy(f->w->plan);
    if (!trial)
        return ST_NOMEM;
    status st = give(trial, f->rank, f->gpu, chosen, f->why);
    w.plan = trial;
    *need = (struct worker_memory){0};
    if (!st && trial->n_holders > f->w->plan->n_holders)
        st = worker_memory(&w, trial->n_holders - 1, need);
    plan_free(trial);
    return st;
}

/* The same of n layers. */
static status need_of(const struct fitting *f, int n, struct worker_memory *need)
{
    return need_of_choice(f, &(struct wire_gpu){.layers = (uint32_t)n}, need);
}

/* As many bytes as there is room for, of what gains most; 0: nothing gains, or nothing fits. What a choice weighs is
 * known, but not what work it needs besides. */
static status fit_benefit(const struct fitting *f, uint64_t *bytes)
{
    enum { STEP = 1 << 16 };
    uint64_t low = 0, high = f->room / STEP + 1; /* low fits, high does not */
    bool any = false;
    for (uint64_t middle = high - 1; high - low > 1; middle = low + (high - low) / 2) { /* all of it first */
        struct worker_memory need;
        status st = need_of_choice(f, &(struct wire_gpu){.bytes = middle * STEP}, &need);
        if (st)
            return st;
        if (need.total > f->room) {
            high = middle;
            continue;
        }
        low = middle;
        any = need.total > 0;
    }
    *bytes = any ? low * STEP : 0;
    return ST_OK;
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

/* Says that what is asked for does not fit, and how many layers do. */
static status refuse(const struct cluster_options *o, const struct fitting *f, const struct gpu_info *gpu,
                     const struct wire_gpu *asked, int fits)
{
    struct worker_memory need;
    char kv[KV_TEXT], what[48] = "attention and the neurons of --gpu-index",
         instead[96] = "a shorter context (-c), less KV memory (--kv-budget) or --device cpu";
    status st = need_of_choice(f, asked, &need);
    if (st)
        return st;
    if (asked->layers)
        snprintf(what, sizeof what, "%u layers", asked->layers);
    if (fits)
        snprintf(instead, sizeof instead, "-ngl %d fits", fits);
    log_error("%s on cuda:%d (%s) need %.1f MiB (weights %.1f, KV cache of %s %.1f, buffers %.1f), %s %.1f: %s", what,
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

/* What the split file marks, all of it. */
static status offer_marked(const struct cluster_options *o, const struct fitting *f, const struct gpu_info *gpu,
                           struct wire_gpu *out)
{
    const struct wire_gpu marked = {.marks = f->why->marks_hash};
    struct worker_memory need;
    int fits;
    status st = need_of_choice(f, &marked, &need);
    if (!st && need.total <= f->room)
        out->marks = marked.marks;
    if (st || out->marks)
        return st;
    st = fit(f, plan_count_layers(f->w->plan, f->rank), &fits);
    return st ? st : refuse(o, f, gpu, &marked, fits);
}

/* The layers asked for. Else of a GPU that the probe has measured, what gains most; of another all of the rank's part,
 * or where not all fits what gains most as GPUs usually are, or nothing does, the layers that fit. The output rows
 * count as one layer more. */
static status offer(const struct cluster_options *o, const struct fitting *f, const struct gpu_info *gpu,
                    struct wire_gpu *out)
{
    const int all = plan_count_layers(f->w->plan, f->rank) + 1;
    const bool free = o->gpu_layers < 0, measured = free && is_measured(f->why, f->rank, f->gpu);
    const bool may_have_none = measured && o->device != DEVICES_CUDA;
    const int wanted = free || o->gpu_layers > all ? all : o->gpu_layers;
    int fits;
    memcpy(out->id, gpu->id, sizeof out->id);
    if (o->gpu_index)
        return offer_marked(o, f, gpu, out);
    status st = measured ? fit_benefit(f, &out->bytes) : ST_OK;
    if (st || out->bytes || (may_have_none && !o->vram_budget))
        return st;
    st = fit(f, wanted, &fits);
    if (!st && free && !measured && fits < wanted)
        st = fit_benefit(f, &out->bytes);
    if (st || out->bytes)
        return st;
    if (fits < wanted && (!free || (o->vram_budget && !fits)))
        return refuse(o, f, gpu, &(struct wire_gpu){.layers = free ? 1 : (uint32_t)wanted}, fits);
    if (!may_have_none) /* else it fits, and gains nothing */
        out->layers = (uint32_t)fits;
    return ST_OK;
}

/* `measured`: the probe knows of one, and shares may count on it. */
static status no_gpu(const struct cluster_options *o, int rank, bool measured, const char *why)
{
    if (o->device == DEVICES_CUDA) {
        log_error("--device cuda: %s", why);
        return ST_USAGE;
    }
    if ((o->gpu_layers > 0 || o->gpu_index || o->vram_budget) && rank == 0)
        log_warn("everything runs on the CPU: %s", why);
    else if (measured)
        log_warn("rank %d computes on its CPU alone, though the probe has measured a GPU of it: %s", rank, why);
    return ST_OK;
}

/* Unless one was asked for, a GPU that does not compute what the model has is as good as none; `why` says so. */
static status offer_if_it_can(const struct cluster_options *o, const struct fitting *f, const struct gpu_info *gpu,
                              struct wire_gpu *out, struct log_catcher *why)
{
    log_catch(why);
    const status st = offer(o, f, gpu, out);
    log_catch(NULL);
    if (st && (st != ST_UNSUPPORTED || o->device == DEVICES_CUDA))
        log_error("%s", why->first_error);
    return st;
}

status offload_offer(const struct cluster_options *o, const struct worker_options *w, int rank, const struct gpus *g,
                     const struct plan_reasons *why, struct wire_gpus *out)
{
    struct log_catcher cannot;
    status st = ST_OK;
    *out = (struct wire_gpus){0};
    if (g->n_usable == 0)
        return no_gpu(o, rank, why->probe && why->model.gpus && why->probe->ranks[rank].n_gpus, g->why);
    if (!plan_takes_part(w->plan, rank))
        return ST_OK;
    for (; out->n < (uint32_t)g->n && !st; out->n++) {
        const struct gpu_info *gpu = &g->at[out->n];
        const struct fitting f = {w, rank, (int)out->n, room_of(o, gpu), why};
        st = gpu->capability ? offer_if_it_can(o, &f, gpu, &out->at[out->n], &cannot) : ST_OK;
    }
    if (st != ST_UNSUPPORTED || o->device == DEVICES_CUDA)
        return st;
    *out = (struct wire_gpus){0};
    if (rank == 0)
        log_warn("everything runs on the CPU: %s", cannot.first_error);
    return ST_OK;
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
            log_error("%s of rank %d (%s) needs %.1f MiB by the plan, %.1f are free: give it fewer layers or neurons, "
                      "or a shorter context (-c)", plan_holder_device(w->plan, h), rank, gpu->name, mib(need.total),
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
        const struct wire_gpu *gpu = &offers[rank].at[i];
        bool taken = !gpu->layers && !gpu->bytes && !gpu->marks;
        for (int r = 0; r < rank && !taken; r++)
            taken = chosen[r] < offers[r].n && same_gpu(&offers[r].at[chosen[r]], gpu);
        if (!taken)
            break;
    }
    return i;
}

static status all_taken(int rank)
{
    log_error("--device cuda: every GPU of rank %d is another rank's on the same host, or has no room: start fewer "
              "ranks there, or name GPUs in a plan (--plan)", rank);
    return ST_USAGE;
}

/* Whether a rank can have so much: its message may say anything. */
static status check_chosen(const struct plan *p, int rank, const struct wire_gpu *gpu, const struct plan_reasons *why)
{
    const int most = plan_count_layers(p, rank) + 1;
    const bool marked = !gpu->bytes && !gpu->layers;
    if (!gpu->bytes && gpu->layers > (uint32_t)most)
        log_error("rank %d gives its GPU %u layers, expected %d at most: start all ranks with the same options", rank,
                  gpu->layers, most);
    else if (marked && gpu->marks != why->marks_hash)
        log_error("rank %d gives its GPU what a split file marks, and here is another or none: name the same file on "
                  "every host (--gpu-index)", rank);
    else
        return ST_OK;
    return ST_MISMATCH;
}

/* What each rank has offered, given; `asked`: of that, what people have said how much of. (Where ranks know different
 * probes or neuron files, their plans will differ.) */
static status give_chosen(struct plan *p, const struct wire_gpus *offers, const struct plan_reasons *why, bool all,
                          bool asked)
{
    uint32_t chosen[PLAN_MAX_RANKS];
    status st = ST_OK;
    for (int r = 0; r < p->n_ranks && !st; r++) {
        const struct wire_gpu *gpu = &offers[r].at[chosen[r] = choose(offers, chosen, r)];
        if (chosen[r] == offers[r].n) {
            st = all && offers[r].n ? all_taken(r) : ST_OK;
            continue;
        }
        if (asked && gpu->bytes)
            continue;
        st = check_chosen(p, r, gpu, why);
        st = st ? st : give(p, r, (int)chosen[r], gpu, why);
    }
    return st;
}

/* Ranks have chosen for themselves: where that is slower for all of them together, only what is asked for is given. */
static void take_back_if_slower(const struct plan_reasons *why, struct plan *p, struct plan *asked)
{
    const struct cost with = cost_of_plan(why->probe, &why->model, p);
    const struct cost without = cost_of_plan(why->probe, &why->model, asked);
    if (cost_ms(&with) <= cost_ms(&without) || (with.fits && !without.fits))
        return;
    const struct plan slower = *p;
    *p = *asked;
    *asked = slower;
}

status offload_apply(struct plan *p, const struct wire_gpus *offers, const struct plan_reasons *why, bool all)
{
    bool by_bytes = false; /* else people have said how much */
    for (int r = 0; r < p->n_ranks; r++)
        for (uint32_t i = 0; i < offers[r].n; i++)
            by_bytes |= offers[r].at[i].bytes > 0;
    const bool compares = by_bytes && why->probe && !all;
    struct plan *asked = compares ? plan_copy(p) : NULL;
    status st = compares && !asked ? ST_NOMEM : give_chosen(p, offers, why, all, false);
    if (!st && asked)
        st = give_chosen(asked, offers, why, all, true);
    if (!st && asked)
        take_back_if_slower(why, p, asked);
    plan_free(asked);
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
            log_error("a GPU of rank %d needs %.1f MiB for all ranks that the plan gives it to, %.1f are free: give "
                      "each rank a GPU of its own", r, mib(need), mib(offers[r].at[i].free_bytes));
            return ST_BUDGET;
        }
    }
    return ST_OK;
}
