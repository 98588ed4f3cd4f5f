/* The CPU as a device: its objects side by side, and the table. */
#include <stdlib.h>

#include "base/log.h"
#include "device/cpu/attention.h"
#include "device/cpu/delta.h"
#include "device/cpu/ffn.h"
#include "device/cpu/output.h"
#include "device/cpu/stream.h"
#include "device/cpu/table.h"
#include "device/decisions.h"
#include "device/logits.h"

struct cpu_device {
    struct device device; /* first: a handle is one of these */
    struct cpu cpu;
    struct stream *stream;
    struct attention *attention;
    struct delta *delta;
    struct ffn *ffn;
    struct output output;
    struct input inputs[DEVICE_USES];
    struct sums sums[DEVICE_USES];
    struct device_memory memory;
};

static struct cpu_device *of(struct device *d) { return (struct cpu_device *)d; }

/* ---- memory ---- */

static void free_objects(struct cpu_device *d)
{
    stream_free(d->stream);
    attention_free(d->attention);
    delta_free(d->delta);
    ffn_free(d->ffn);
}

static status make_objects(struct cpu_device *d, const struct device_options *o)
{
    d->cpu = (struct cpu){.o = *o, .hp = &o->model->hp};
    status st = stream_new(&d->cpu, &d->stream);
    st = st ? st : attention_new(&d->cpu, &d->attention);
    st = st ? st : delta_new(&d->cpu, &d->delta);
    return st ? st : ffn_new(&d->cpu, &d->ffn);
}

static void lay_handles(struct cpu_device *d)
{
    struct cpu *c = &d->cpu;
    for (int i = 0; i < DEVICE_USES; i++) {
        if (!c->o.shard->uses[i])
            continue;
        input_lay(c, &d->inputs[i]);
        d->sums[i].sum = arena_alloc(&c->arena, (size_t)(c->o.n_batch * c->hp->d_model) * sizeof *d->sums[i].sum);
    }
}

/* Hands out every array, from one arena. A dry one counts the same calls: memory is known before loading. */
static void lay_out(struct cpu_device *d)
{
    struct arena *a = &d->cpu.arena;
    stream_lay_weights(d->stream);
    output_lay(&d->cpu, &d->output);
    for (int i = 0; i < d->cpu.hp->n_layers; i++) {
        attention_lay_weights(d->attention, i);
        delta_lay_weights(d->delta, i);
    }
    for (int i = 0; i < d->cpu.hp->n_layers; i++)
        ffn_lay_weights(d->ffn, i);
    d->memory.weights = a->used;
    attention_lay_pages(d->attention);
    d->memory.kv = a->used - d->memory.weights;
    delta_lay_states(d->delta);
    d->memory.states = a->used - d->memory.weights - d->memory.kv;
    stream_lay_buffers(d->stream);
    lay_handles(d);
    attention_lay_buffers(d->attention);
    delta_lay_buffers(d->delta);
    ffn_lay_buffers(d->ffn);
    d->memory.buffers = a->used - d->memory.weights - d->memory.kv - d->memory.states;
    d->memory.total = a->used;
}

static status cpu_need(const struct device_options *o, struct device_memory *out)
{
    struct cpu_device d = {.device.ops = &device_cpu};
    status st = context_check(o);
    st = st ? st : make_objects(&d, o);
    if (!st) {
        lay_out(&d);
        *out = d.memory;
    }
    free_objects(&d);
    return st;
}

static void show_handles(struct cpu_device *d)
{
    for (int i = 0; i < DEVICE_USES; i++) {
        d->device.in[i] = d->cpu.o.shard->uses[i] ? &d->inputs[i] : NULL;
        d->device.sums[i] = d->cpu.o.shard->uses[i] ? &d->sums[i] : NULL;
    }
}

static void cpu_close(struct device *device)
{
    struct cpu_device *d = of(device);
    if (!d)
        return;
    free_objects(d);
    arena_unmap(&d->cpu.arena);
    free(d);
}

static status cpu_open(const struct device_options *o, struct device **out)
{
    struct device_memory need;
    status st = cpu_need(o, &need);
    if (st)
        return st;
    struct cpu_device *d = calloc(1, sizeof *d);
    if (!d) {
        log_error("out of memory for a device");
        return ST_NOMEM;
    }
    d->device.ops = &device_cpu;
    st = make_objects(d, o);
    st = st ? st : arena_map(&d->cpu.arena, need.total);
    if (st) {
        cpu_close(&d->device);
        return st;
    }
    lay_out(d);
    if (d->memory.total != need.total) {
        log_error("a device took %llu bytes, and was to take %llu", (unsigned long long)d->memory.total,
                  (unsigned long long)need.total);
        cpu_close(&d->device);
        return ST_INTERNAL;
    }
    show_handles(d);
    *out = &d->device;
    return ST_OK;
}

static status cpu_load(struct device *device, const struct device_loading *l)
{
    struct cpu_device *d = of(device);
    struct loading loading = {.o = &d->cpu.o, .l = l};
    stream_load(d->stream, &loading);
    for (int i = 0; i < d->cpu.hp->n_layers; i++) {
        attention_load(d->attention, &loading, i);
        delta_load(d->delta, &loading, i);
        ffn_load(d->ffn, &loading, i);
    }
    output_load(&loading, &d->output);
    return ST_OK;
}

static void cpu_copy_page(struct device *d, int layer, uint32_t from, uint32_t to)
{
    attention_copy_page(of(d)->attention, layer, from, to);
}

/* ---- at home ---- */

static status cpu_embed(struct device *d, const struct batch *b, const int32_t *tokens)
{
    return stream_embed(of(d)->stream, b, tokens);
}

static status cpu_import_states(struct device *d, const struct batch *b, const float *from, const char *what)
{
    return stream_import(of(d)->stream, b, from, what);
}

static void cpu_export_states(struct device *d, uint32_t n, float *to) { stream_export(of(d)->stream, n, to); }

static status cpu_norm(struct device *d, const struct work *w) { return stream_norm(of(d)->stream, w, d->in[USE_OWN]); }

static status cpu_add(struct device *d, const struct work *w)
{
    return stream_add(of(d)->stream, w, d->in[USE_OWN], d->sums[USE_OWN]);
}

/* ---- in and out ---- */

static void cpu_export_input(struct device *d, const struct work *w, const struct input *in,
                             const struct input_bytes *to)
{
    input_export(&of(d)->cpu, w, in, to);
}

static void cpu_import_input(struct device *d, const struct work *w, const struct input_bytes *from, struct input *in)
{
    input_import(&of(d)->cpu, w, from, in);
}

static void cpu_export_sums(struct device *d, uint32_t n, const struct sums *sums, bool f16, const struct sum_bytes *to)
{
    sums_export(&of(d)->cpu, n, sums, f16, to);
}

static void cpu_import_sums(struct device *d, uint32_t n, const struct sum_bytes *from, struct sums *sums)
{
    sums_import(&of(d)->cpu, n, from, sums);
}

static void cpu_clear_sums(struct device *d, uint32_t n, struct sums *sums) { sums_clear(&of(d)->cpu, n, sums); }

/* ---- parts ---- */

static void cpu_part(struct device *device, const struct work *w, const struct input *in, struct sums *sums)
{
    struct cpu_device *d = of(device);
    const struct device_options *o = &d->cpu.o;
    if (w->part == DEVICE_ATTENTION && d->cpu.hp->layer[w->layer].kind == LAYER_DELTA) {
        delta_compute(d->delta, w, &in->acts, sums->sum);
        return;
    }
    if (w->part == DEVICE_ATTENTION) {
        attention_compute(d->attention, w, &in->acts, sums->sum);
        return;
    }
    ffn_compute(d->ffn, w, in, sums);
    if (o->observe && in == device->in[USE_OWN])
        ffn_observe(d->ffn, w, in);
}

static uint32_t cpu_fire(struct device *d, const struct work *w, const struct input *in)
{
    return ffn_fire(of(d)->ffn, w, in);
}

static void cpu_live(struct device *d, const struct work *w, const struct live *to) { ffn_live(of(d)->ffn, w, to); }

static void cpu_project(struct device *d, const struct work *w, int guest, const struct live *from, struct sums *sums)
{
    ffn_project(of(d)->ffn, w, guest, from, sums);
}

static void cpu_logits(struct device *d, const struct work *w, const struct input *in, float *logits, int64_t stride)
{
    output_compute(&of(d)->cpu, &of(d)->output, &in->acts, w->n, logits, stride);
}

static status cpu_check_logits(struct device *d, const struct work *w, const float *logits)
{
    return logits_check(&of(d)->cpu.o, w, logits);
}

static void cpu_score(struct device *d, uint32_t n, float *logits, const int32_t *next, float *scores)
{
    logits_score(&of(d)->cpu.o, n, logits, next, scores);
}

/* Whatever is found is returned at once. */
static status cpu_found(struct device *d)
{
    (void)d;
    return ST_OK;
}

static struct device_counts cpu_counts(struct device *d)
{
    const struct device_counts counts = of(d)->cpu.counts;
    of(d)->cpu.counts = (struct device_counts){0};
    return counts;
}

static bool cpu_done(struct device *d)
{
    (void)d;
    return true;
}

const struct device_ops device_cpu = {
    .name = "cpu",
    .need = cpu_need,
    .open = cpu_open,
    .close = cpu_close,
    .load = cpu_load,
    .copy_page = cpu_copy_page,
    .embed = cpu_embed,
    .import_states = cpu_import_states,
    .export_states = cpu_export_states,
    .norm = cpu_norm,
    .add = cpu_add,
    .export_input = cpu_export_input,
    .import_input = cpu_import_input,
    .export_sums = cpu_export_sums,
    .import_sums = cpu_import_sums,
    .clear_sums = cpu_clear_sums,
    .part = cpu_part,
    .fire = cpu_fire,
    .live = cpu_live,
    .project = cpu_project,
    .logits = cpu_logits,
    .check_logits = cpu_check_logits,
    .score = cpu_score,
    .found = cpu_found,
    .counts = cpu_counts,
    .done = cpu_done,
};
