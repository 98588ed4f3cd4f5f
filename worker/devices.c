#include "worker/devices_inside.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"

static int count_devices(const struct plan *p, int rank)
{
    int n = 0;
    while (holder_of(p, rank, n) >= 0)
        n++;
    return n;
}

/* "cuda:1": 1; "cpu": 0. */
static int index_of(const char *device)
{
    const char *colon = strchr(device, ':');
    return colon ? atoi(colon + 1) : 0;
}

static struct device_options describe(const struct worker_options *o, const char *device, const struct shard *shard)
{
    return (struct device_options){.index = index_of(device), .vram_budget = o->vram_budget, .model = o->model,
                                   .neurons = o->neurons, .shard = shard, .sparse = o->sparse,
                                   .predictor = o->predictor, .skip_share = o->skip_share, .n_ctx = o->n_ctx,
                                   .n_batch = o->n_batch, .n_pages = o->n_pages,
                                   .n_states = device_states(o->model, o->n_sequences), .observe = o->observe,
                                   .observe_arg = o->observe_arg, .kernels = o->kernels, .n_threads = o->n_threads};
}

/* What the rank has of that kind: "cuda:0" and "cuda:1" are both "cuda". NULL: nothing. */
static const struct device_ops *find_kind(const struct worker_options *o, const char *device)
{
    const size_t n = strcspn(device, ":");
    for (int i = 0; i < o->n_devices; i++)
        if (strlen(o->devices[i]->name) == n && memcmp(o->devices[i]->name, device, n) == 0)
            return o->devices[i];
    return NULL;
}

static status describe_one(struct devices *d, int rank, int i)
{
    struct one *one = &d->one[i];
    one->holder = holder_of(d->o->plan, rank, i);
    one->async = !plan_holder_is_cpu(d->o->plan, one->holder);
    const char *device = plan_holder_device(d->o->plan, one->holder);
    one->ops = find_kind(d->o, device);
    status st = shard_new(d->o->plan, &d->shape, rank, i, &one->shard);
    one->options = describe(d->o, device, one->shard);
    if (one->async && one->holder == plan_home(d->o->plan, rank))
        one->options.n_passing = states_passing(d->o->plan, rank);
    return st;
}

status devices_new(const struct worker_options *o, int rank, struct devices **out)
{
    const int n = count_devices(o->plan, rank);
    struct devices *d = calloc(1, sizeof *d);
    struct one *one = calloc((size_t)n, sizeof *one);
    status st = ST_OK;
    if (!d || !one) {
        log_error("out of memory for a rank's devices");
        free(one);
        free(d);
        return ST_NOMEM;
    }
    *d = (struct devices){.o = o, .shape = device_shape(o->model), .n = n, .one = one,
                          .home = &one[home_of(o->plan, rank)]};
    for (int i = 0; i < n && !st; i++)
        st = describe_one(d, rank, i);
    if (st) {
        devices_free(d);
        return st;
    }
    *out = d;
    return ST_OK;
}

void devices_free(struct devices *d)
{
    if (!d)
        return;
    for (int i = 0; i < d->n; i++) {
        if (d->one[i].device)
            d->one[i].ops->close(d->one[i].device);
        shard_free(d->one[i].shard);
    }
    arena_unmap(&d->arena);
    free(d->one);
    free(d);
}

/* ---- memory ---- */

/* What passes between the devices. */
static void lay_transfers(struct devices *d)
{
    const size_t tokens = d->o->n_batch, width = ((size_t)d->shape.d_model + 31) / 32;
    for (int i = 0; i < DEVICE_USES && d->n > 1; i++) {
        if (!d->home->shard->uses[i])
            continue;
        d->in[i].codes = arena_alloc(&d->arena, tokens * width * 32);
        d->in[i].scale = arena_alloc(&d->arena, tokens * width * sizeof(float));
        d->in[i].f32 = arena_alloc(&d->arena, tokens * width * 32 * sizeof(float));
        if (device_reads_residual(&d->home->options))
            d->in[i].residual = arena_alloc(&d->arena, tokens * width * 32 * sizeof(float));
        const size_t chosen = tokens * (size_t)d->shape.n_experts_used, weights = tokens * (size_t)d->shape.n_weights;
        d->in[i].expert = chosen ? arena_alloc(&d->arena, chosen * sizeof(uint32_t)) : NULL;
        d->in[i].weight = chosen ? arena_alloc(&d->arena, weights * sizeof(float)) : NULL;
    }
    if (d->n > 1) {
        d->out.width = arena_alloc(&d->arena, tokens * width);
        d->out.packed = arena_alloc(&d->arena, tokens * width * 32 * sizeof(double));
    }
}

status devices_need(struct devices *d, int holder, struct device_memory *out)
{
    int i = 0;
    while (d->one[i].holder != holder)
        i++;
    const struct device_ops *ops = d->one[i].ops ? d->one[i].ops : d->o->devices[0];
    status st = ops->need(&d->one[i].options, out);
    if (st || i)
        return st;
    arena_dry(&d->arena);
    lay_transfers(d);
    out->buffers += d->arena.used;
    out->total += d->arena.used;
    return ST_OK;
}

static status find_device(const struct devices *d, int i)
{
    const struct plan *p = d->o->plan;
    if (d->one[i].ops)
        return ST_OK;
    log_error("the plan's holders[%d] is %s of rank %d, which has no such device", d->one[i].holder,
              plan_holder_device(p, d->one[i].holder), plan_holder_rank(p, d->one[i].holder));
    return ST_UNSUPPORTED;
}

status devices_check(const struct devices *d)
{
    status st = ST_OK;
    for (int i = 0; i < d->n && !st; i++)
        st = find_device(d, i);
    return st;
}

status devices_open(struct devices *d, struct pool *pool)
{
    status st = devices_check(d);
    for (int i = 0; i < d->n && !st; i++) {
        struct device_memory need;
        st = d->one[i].ops->need(&d->one[i].options, &need);
        if (st)
            break;
        d->one[i].options.pool = pool;
        st = d->one[i].ops->open(&d->one[i].options, &d->one[i].device);
        d->total += need.weights;
    }
    arena_dry(&d->arena);
    lay_transfers(d);
    if (!st && d->arena.used) {
        st = arena_map(&d->arena, d->arena.used);
        lay_transfers(d);
    }
    return st;
}

static void loaded(void *arg, uint64_t bytes)
{
    struct devices *d = arg;
    d->done += bytes;
    if (d->o->progress && (d->done - d->shown > d->total / 200 || d->done == d->total)) {
        d->o->progress(d->o->progress_arg, "loading", d->done, d->total);
        d->shown = d->done;
    }
}

status devices_load(struct devices *d)
{
    const struct device_loading l = {.chunks = d->o->chunks, .loaded = loaded, .arg = d};
    status st = ST_OK;
    for (int i = 0; i < d->n && !st; i++)
        st = d->one[i].ops->load(d->one[i].device, &l);
    if (!st && d->o->progress)
        d->o->progress(d->o->progress_arg, "loading", d->total, d->total);
    return st;
}

struct device *devices_home(const struct devices *d) { return d->home->device; }

const struct device_options *devices_options(const struct devices *d) { return &d->home->options; }

const struct shard *devices_shard(const struct devices *d) { return d->home->shard; }
