/* A GPU as a device: its objects side by side, and the table. */
#include <math.h>
#include <stdlib.h>

#include "base/log.h"
#include "device/cuda/attention.h"
#include "device/cuda/ffn.h"
#include "device/cuda/load.h"
#include "device/cuda/output.h"
#include "device/cuda/stream.h"
#include "device/cuda/table.h"
#include "device/cuda/transfer.h"
#include "device/decisions.h"
#include "device/logits.h"
#include "kernels/cuda/products.h"
#include "kernels/cuda/stream.h"

struct cuda_device {
    struct device device; /* first: a handle is one of these */
    struct cuda cuda;
    struct stream *stream;
    struct attention *attention;
    struct ffn *ffn;
    struct output output;
    struct transfer transfer;
    struct input inputs[DEVICE_USES];
    struct sums sums[DEVICE_USES];
    struct device_memory memory;
};

static struct cuda_device *of(struct device *d) { return (struct cuda_device *)d; }

/* ---- memory ---- */

static void free_objects(struct cuda_device *d)
{
    cuda_stream_free(d->stream);
    cuda_attention_free(d->attention);
    cuda_ffn_free(d->ffn);
}

/* Experts' biases are added to sums that are then normed: no family has both. */
static bool norms_biases(const struct model *m)
{
    bool both = false;
    for (int i = 0; i < m->hp.n_layers; i++)
        both |= m->layers[i].expert_down_bias.data && m->layers[i].ffn_post_norm.data;
    return both;
}

/* What no GPU computes of a model; NULL: nothing. */
static const char *lacking(const struct model *m)
{
    const struct hparams *hp = &m->hp;
    const struct {
        bool has;
        const char *what;
    } parts[] = {
        {hp->delta.key_heads > 0, "gated delta nets"},
        {norms_biases(m), "norms of what biases of experts are a part of"},
    };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (parts[i].has)
            return parts[i].what;
    return NULL;
}

static status check_model(const struct device_options *o)
{
    const struct model *m = o->model;
    if (o->observe) {
        log_error("%s: neurons are counted on the CPU alone: --device cpu", gguf_path(m->file));
        return ST_UNSUPPORTED;
    }
    const char *lacks = lacking(m);
    if (lacks) {
        log_error("%s: a GPU does not compute %s, which this %s model has: --device cpu", gguf_path(m->file), lacks,
                  m->hp.arch_name);
        return ST_UNSUPPORTED;
    }
    if (m->hp.d_model <= GPU_NORM_MOST)
        return context_check(o);
    log_error("%s: x has %lld values; a GPU takes %d at most: --device cpu", gguf_path(m->file),
              (long long)m->hp.d_model, GPU_NORM_MOST);
    return ST_UNSUPPORTED;
}

static status make_objects(struct cuda_device *d, const struct device_options *o)
{
    d->cuda = (struct cuda){.o = *o, .hp = &o->model->hp};
    d->transfer.c = &d->cuda;
    status st = check_model(o);
    st = st ? st : cuda_stream_new(&d->cuda, &d->stream);
    st = st ? st : cuda_attention_new(&d->cuda, &d->attention);
    st = st ? st : cuda_ffn_new(&d->cuda, &d->ffn);
    if (!st)
        d->cuda.notes_bytes = sizeof *d->cuda.notes + (size_t)cuda_ffn_counters(d->ffn) * sizeof *d->cuda.notes->counts;
    return st;
}

static void lay_handles(struct cuda_device *d)
{
    struct cuda *c = &d->cuda;
    for (int i = 0; i < DEVICE_USES; i++) {
        if (!c->o.shard->uses[i])
            continue;
        cuda_input_lay(c, &d->inputs[i]);
        lay_sums(c, &d->sums[i].of);
    }
}

/* Hands out every array, from one arena. A dry one counts the same calls: memory is known before loading. */
static void lay_out(struct cuda_device *d)
{
    struct arena *a = &d->cuda.arena;
    cuda_stream_lay_weights(d->stream);
    cuda_output_lay_weights(&d->cuda, &d->output);
    for (int i = 0; i < d->cuda.hp->n_layers; i++)
        cuda_attention_lay_weights(d->attention, i);
    for (int i = 0; i < d->cuda.hp->n_layers; i++)
        cuda_ffn_lay_weights(d->ffn, i);
    d->memory.weights = a->used;
    cuda_attention_lay_pages(d->attention);
    d->memory.kv = a->used - d->memory.weights;
    d->cuda.notes = arena_alloc(a, d->cuda.notes_bytes);
    cuda_stream_lay_buffers(d->stream);
    lay_handles(d);
    cuda_transfer_lay(&d->transfer);
    cuda_attention_lay_buffers(d->attention);
    cuda_ffn_lay_buffers(d->ffn);
    cuda_output_lay_buffers(&d->cuda, &d->output);
    d->memory.buffers = a->used - d->memory.weights - d->memory.kv;
    d->memory.total = a->used;
}

static status need(const struct device_options *o, struct device_memory *out)
{
    struct cuda_device d = {.device.ops = &device_cuda};
    status st = make_objects(&d, o);
    if (!st) {
        lay_out(&d);
        *out = d.memory;
    }
    free_objects(&d);
    return st;
}

static void show_handles(struct cuda_device *d)
{
    for (int i = 0; i < DEVICE_USES; i++) {
        d->device.in[i] = d->cuda.o.shard->uses[i] ? &d->inputs[i] : NULL;
        d->device.sums[i] = d->cuda.o.shard->uses[i] ? &d->sums[i] : NULL;
    }
}

static void close_device(struct device *device)
{
    struct cuda_device *d = of(device);
    if (!d)
        return;
    cuda_settle(&d->cuda);
    queue_close(&d->cuda);
    staging_close(&d->cuda);
    cuda_release(&d->cuda);
    faults_close(&d->cuda.faults);
    free_objects(d);
    free(d);
}

/* Nothing is noted yet. */
static status clear_notes(struct cuda *c)
{
    const bool ok = cuda_ok(c, cudaMemsetAsync(c->notes, 0, c->notes_bytes, c->gpu.stream), "cudaMemsetAsync") &&
                    cuda_ok(c, cudaMemsetAsync(&c->notes->fault, 0xff, sizeof c->notes->fault, c->gpu.stream),
                            "cudaMemsetAsync");
    return ok ? ST_OK : ST_INTERNAL;
}

static status take_memory(struct cuda_device *d, uint64_t bytes)
{
    status st = faults_open(&d->cuda.faults, &d->cuda.o);
    st = st ? st : queue_open(&d->cuda);
    st = st ? st : cuda_acquire(&d->cuda, bytes);
    st = st ? st : staging_open(&d->cuda);
    if (st)
        return st;
    lay_out(d);
    if (d->memory.total == bytes)
        return clear_notes(&d->cuda);
    log_error("a device took %llu bytes, and was to take %llu", (unsigned long long)d->memory.total,
              (unsigned long long)bytes);
    return ST_INTERNAL;
}

static status open_device(const struct device_options *o, struct device **out)
{
    struct device_memory needed;
    status st = need(o, &needed);
    if (st)
        return st;
    struct cuda_device *d = calloc(1, sizeof *d);
    if (!d) {
        log_error("out of memory for a device");
        return ST_NOMEM;
    }
    d->device.ops = &device_cuda;
    st = make_objects(d, o);
    st = st ? st : take_memory(d, needed.total);
    if (st) {
        close_device(&d->device);
        return st;
    }
    show_handles(d);
    *out = &d->device;
    return ST_OK;
}

static status load(struct device *device, const struct device_loading *l)
{
    struct cuda_device *d = of(device);
    struct loader loader;
    status st = cuda_begin(&d->cuda);
    if (st)
        return st;
    if (cuda_loader_open(&loader, &d->cuda, l) == ST_OK) {
        cuda_stream_load(d->stream, &loader.loading);
        for (int i = 0; i < d->cuda.hp->n_layers; i++) {
            cuda_attention_load(d->attention, &loader.loading, i);
            cuda_ffn_load(d->ffn, &loader.loading, i);
        }
        cuda_output_load(&loader.loading, &d->output);
    }
    return cuda_loader_close(&loader);
}

/* ---- operations ---- */

/* The device, if it still computes; each operation begins so, what is queued being launched before it, */
static struct cuda_device *begin(struct device *device)
{
    struct cuda_device *d = of(device);
    if (d->cuda.lost || cuda_begin(&d->cuda))
        return NULL;
    queue_flush(&d->cuda);
    return d->cuda.lost ? NULL : d;
}

/* or so, if it is queued itself. */
static struct cuda_device *begin_queued(struct device *device)
{
    struct cuda_device *d = of(device);
    return !d->cuda.lost && cuda_begin(&d->cuda) == ST_OK ? d : NULL;
}

/* One that returns a status: unless it is to return what was found before. */
static struct cuda_device *begin_step(struct device *device)
{
    return of(device)->cuda.failed ? NULL : begin_queued(device);
}

/* What was found since an operation returned a status; what it may find itself comes later. */
static status end(struct device *device)
{
    struct cuda *c = &of(device)->cuda;
    const status found = c->failed;
    if (!cuda_launched(c))
        return ST_INTERNAL;
    c->failed = ST_OK;
    return found;
}

static void copy_page(struct device *device, int layer, uint32_t from, uint32_t to)
{
    struct cuda_device *d = begin(device);
    if (!d)
        return;
    cuda_attention_copy_page(d->attention, layer, from, to);
    cuda_launched(&d->cuda);
}

/* ---- at home ---- */

static status embed(struct device *device, const struct batch *b, const int32_t *tokens)
{
    struct cuda_device *d = begin_step(device);
    if (d) {
        cuda_attention_prepare(d->attention, b);
        cuda_stream_embed(d->stream, b, tokens);
    }
    return end(device);
}

static status import_states(struct device *device, const struct batch *b, const float *from, const char *what)
{
    struct cuda_device *d = begin_step(device);
    if (d) {
        cuda_attention_prepare(d->attention, b);
        cuda_stream_import(d->stream, b, from, what);
    }
    return end(device);
}

static void export_states(struct device *device, uint32_t n, float *to)
{
    struct cuda_device *d = begin(device);
    if (d)
        cuda_stream_export(d->stream, n, to);
    for (int64_t i = 0; of(device)->cuda.lost && i < n * of(device)->cuda.hp->d_model; i++)
        to[i] = NAN; /* a lost GPU's are no numbers: whoever takes them sees it */
}

static float *passing(struct device *device, uint32_t i) { return cuda_stream_passing(of(device)->stream, i); }

static void give_states(struct device *device, uint32_t n, float *to)
{
    struct cuda_device *d = begin(device);
    if (d)
        cuda_stream_give(d->stream, n, to);
}

static status take_states(struct device *device, const struct batch *b, const float *from, const char *what)
{
    struct cuda_device *d = begin_step(device);
    if (d) {
        cuda_attention_prepare(d->attention, b);
        cuda_stream_take(d->stream, b, from, what);
    }
    return end(device);
}

static void pin(struct device *device, void *memory, size_t bytes)
{
    if (begin(device))
        staging_pin(&of(device)->cuda, memory, bytes);
}

static status norm(struct device *device, const struct work *w)
{
    struct cuda_device *d = begin_step(device);
    if (d)
        cuda_stream_norm(d->stream, w, device->in[USE_OWN]);
    return end(device);
}

static status add(struct device *device, const struct work *w)
{
    struct cuda_device *d = begin_step(device);
    if (d)
        cuda_stream_add(d->stream, w, device->in[USE_OWN], device->sums[USE_OWN]);
    return end(device);
}

/* ---- in and out ---- */

static void export_input(struct device *device, const struct work *w, const struct input *in,
                         const struct input_bytes *to)
{
    begin(device);
    cuda_input_export(&of(device)->transfer, w, in, to);
}

static void import_input(struct device *device, const struct work *w, const struct input_bytes *from, struct input *in)
{
    struct cuda_device *d = begin(device);
    if (!d)
        return;
    cuda_input_import(&d->transfer, w, from, in);
    cuda_launched(&d->cuda);
}

static void export_sums(struct device *device, uint32_t n, const struct sums *sums, bool f16,
                        const struct sum_bytes *to)
{
    begin(device);
    cuda_sums_export(&of(device)->transfer, n, sums, f16, to);
}

static void import_sums(struct device *device, uint32_t n, const struct sum_bytes *from, struct sums *sums)
{
    struct cuda_device *d = begin(device);
    if (!d)
        return;
    cuda_sums_import(&d->transfer, n, from, sums);
    cuda_launched(&d->cuda);
}

static void launch_clear(void *object, const struct operation *o)
{
    const struct cuda *c = object;
    const struct sums *sums = o->sums;
    gpu_clear_sums(&c->gpu, &sums->of, (int64_t)o->n, c->hp->d_model);
}

static void clear_sums(struct device *device, uint32_t n, struct sums *sums)
{
    struct cuda_device *d = begin_queued(device);
    if (d)
        queue_add(&d->cuda, &(struct operation){.launch = launch_clear, .object = &d->cuda, .sums = sums, .n = n});
}

/* ---- parts ---- */

/* Whether others compute this part too: they begin when this one has. */
static bool has_partners(const struct cuda_device *d, const struct work *w)
{
    const struct hparams *hp = d->cuda.hp;
    const struct shard_layer *l = &d->cuda.o.shard->layers[w->layer];
    int64_t neurons = 0;
    for (int i = 0; i < l->n_sets; i++)
        neurons += neuron_list_count(&l->sets[i]);
    return w->part == DEVICE_ATTENTION ? l->head_end - l->head_begin < hp->n_kv_heads
                                       : neurons < model_layer_neurons(d->cuda.o.model, w->layer);
}

static void part(struct device *device, const struct work *w, const struct input *in, struct sums *sums)
{
    struct cuda_device *d = begin_queued(device);
    if (!d)
        return;
    if (w->part == DEVICE_ATTENTION)
        cuda_attention_compute(d->attention, w, in, sums);
    else
        cuda_ffn_compute(d->ffn, w, in, sums);
    if (has_partners(d, w))
        queue_flush(&d->cuda);
}

static uint32_t fire_neurons(struct device *device, const struct work *w, const struct input *in)
{
    begin(device);
    return cuda_ffn_fire(of(device)->ffn, w, in);
}

static void live(struct device *device, const struct work *w, const struct live *to)
{
    cuda_ffn_live(of(device)->ffn, w, to);
}

static void project(struct device *device, const struct work *w, int guest, const struct live *from, struct sums *sums)
{
    struct cuda_device *d = begin(device);
    if (!d)
        return;
    cuda_ffn_project(d->ffn, w, guest, from, sums);
    cuda_launched(&d->cuda);
}

static void logits(struct device *device, const struct work *w, const struct input *in, float *to, int64_t stride)
{
    struct cuda_device *d = of(device);
    begin(device);
    cuda_output_compute(&d->cuda, &d->output, &in->acts, w->n, to, stride);
}

static status check_logits(struct device *device, const struct work *w, const float *of_tokens)
{
    status st = end(device);
    return st ? st : logits_check(&of(device)->cuda.o, w, of_tokens);
}

static void score(struct device *device, uint32_t n, float *of_tokens, const int32_t *next, float *scores)
{
    logits_score(&of(device)->cuda.o, n, of_tokens, next, scores);
}

/* ---- at any time ---- */

static struct device_counts counts(struct device *device)
{
    struct cuda_device *d = of(device);
    struct device_counts found = d->cuda.counts;
    cuda_ffn_count(d->ffn, &found);
    d->cuda.counts = (struct device_counts){0};
    return found;
}

static bool done(struct device *device)
{
    struct cuda_device *d = begin(device);
    if (!d)
        return true;
    const cudaError_t e = cudaStreamQuery(d->cuda.gpu.stream);
    if (e == cudaErrorNotReady) {
        cudaGetLastError(); /* it counts as an error there */
        return false;
    }
    cuda_ok(&d->cuda, e, "cudaStreamQuery");
    return true;
}

const struct device_ops device_cuda = {
    .name = "cuda",
    .need = need,
    .open = open_device,
    .close = close_device,
    .load = load,
    .copy_page = copy_page,
    .embed = embed,
    .import_states = import_states,
    .export_states = export_states,
    .passing = passing,
    .give_states = give_states,
    .take_states = take_states,
    .pin = pin,
    .norm = norm,
    .add = add,
    .export_input = export_input,
    .import_input = import_input,
    .export_sums = export_sums,
    .import_sums = import_sums,
    .clear_sums = clear_sums,
    .part = part,
    .fire = fire_neurons,
    .live = live,
    .project = project,
    .logits = logits,
    .check_logits = check_logits,
    .score = score,
    .found = end,
    .counts = counts,
    .done = done,
};
