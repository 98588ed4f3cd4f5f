#include "device/cuda/ffn.h"

#include <math.h>
#include <stdlib.h>

#include "base/log.h"
#include "device/cuda/down.h"
#include "device/cuda/experts.h"
#include "device/cuda/fire.h"
#include "kernels/cuda/stream.h"

/* What the host knows of what a counter counts. */
struct counted {
    uint64_t calls;                  /* since the GPU's counts were seen to grow */
    struct gpu_counts reported;      /* what the GPU had counted then */
};

/* Live neurons of guests, as struct live. */
struct visitors {
    uint32_t *first, *index;         /* [n + 1], [n, neurons of a guest] */
    float *value;
};

struct ffn {
    struct cuda *c;
    struct held_neurons held;
    struct experts experts;
    int *counters;                   /* [n_layers + 1] where a layer's counters begin: one for each set, or for all */
    struct counted *counted;         /* of the counters */
    struct ranges *ranges;           /* of the sets */
    struct ranges *guest_ranges;
    struct firing firing;
    struct visitors visitors;
    float *fired;                    /* host [n, slots] activations of a set whose down projection is elsewhere */
};

int cuda_ffn_counters(const struct ffn *f) { return f->counters[f->c->hp->n_layers]; }

/* ---- memory ---- */

/* Slots of the widest set without a down projection, which the host lists. */
static int64_t listed_slots(const struct cuda *c)
{
    int64_t most = 0;
    for (int i = 0; i < c->hp->n_layers; i++) {
        const struct shard_layer *l = &c->o.shard->layers[i];
        struct neuron_set s = {0};
        if (l->n_sets && !l->down)
            neuron_set_shape(&s, model_neuron_unit(c->o.model),
                             &c->o.model->layers[i].bundles[l->sets->bundle], l->sets);
        most = s.n_blocks * ACT_BLOCK > most ? s.n_blocks * ACT_BLOCK : most;
    }
    return most;
}

static void place_counters(struct ffn *f)
{
    const struct device_options *o = &f->c->o;
    for (int i = 0; i < o->model->hp.n_layers; i++) {
        const int sets = o->shard->layers[i].n_sets;
        f->counters[i + 1] = f->counters[i] + (sets && model_has_experts(o->model, i) ? 1 : sets);
    }
}

static status take_tables(struct ffn *f)
{
    const struct device_options *o = &f->c->o;
    f->counters = calloc((size_t)o->model->hp.n_layers + 1, sizeof *f->counters);
    f->counted = calloc((size_t)f->held.n_sets + 1, sizeof *f->counted);
    f->ranges = calloc((size_t)f->held.n_sets + 1, sizeof *f->ranges);
    f->guest_ranges = calloc((size_t)o->shard->n_guests + 1, sizeof *f->guest_ranges);
    f->fired = calloc((size_t)(o->n_batch * listed_slots(f->c)) + 1, sizeof *f->fired);
    if (f->counters && f->counted && f->ranges && f->guest_ranges && f->fired) {
        place_counters(f);
        return ST_OK;
    }
    log_error("out of memory for the tables of neurons");
    return ST_NOMEM;
}

status cuda_ffn_new(struct cuda *c, struct ffn **out)
{
    struct ffn *f = calloc(1, sizeof *f);
    if (!f) {
        log_error("out of memory for the tables of neurons");
        return ST_NOMEM;
    }
    f->c = c;
    status st = held_neurons_new(&c->o, &f->held);
    st = st ? st : cuda_experts_new(c, &f->experts);
    st = st ? st : take_tables(f);
    if (st)
        cuda_ffn_free(f);
    else
        *out = f;
    return st;
}

void cuda_ffn_free(struct ffn *f)
{
    if (!f)
        return;
    held_neurons_free(&f->c->o, &f->held);
    cuda_experts_free(&f->experts);
    free(f->counters);
    free(f->counted);
    free(f->ranges);
    free(f->guest_ranges);
    free(f->fired);
    free(f);
}

void cuda_ffn_lay_weights(struct ffn *f, int layer)
{
    const struct laying to = cuda_laying(f->c);
    const struct shard *shard = f->c->o.shard;
    held_neurons_lay(&to, &f->held, layer);
    for (int i = f->held.first[layer]; i < f->held.first[layer + 1]; i++)
        cuda_ranges_lay(f->c, &f->held.sets[i].down, &f->ranges[i]);
    for (int i = 0; i < shard->n_guests; i++)
        if (shard->guests[i].layer == layer)
            cuda_ranges_lay(f->c, &f->held.guests[i].down, &f->guest_ranges[i]);
    cuda_experts_lay(f->c, &f->experts, &f->held, layer);
}

static void lay_visitors(struct ffn *f, int64_t neurons)
{
    struct cuda *c = f->c;
    f->visitors.first = lay_words(&c->arena, c->o.n_batch + 1);
    f->visitors.index = lay_words(&c->arena, c->o.n_batch * neurons);
    f->visitors.value = lay_floats(&c->arena, c->o.n_batch * neurons);
}

void cuda_ffn_lay_buffers(struct ffn *f)
{
    struct cuda *c = f->c;
    const struct widths widest = held_neurons_widest(&c->o, &f->held);
    int64_t visitors = 0;
    for (int i = 0; i < c->o.shard->n_guests; i++)
        visitors = f->held.guests[i].set.n > visitors ? f->held.guests[i].set.n : visitors;
    cuda_firing_lay(c, &f->firing, &widest);
    cuda_experts_lay_buffers(c, &f->experts, widest.neurons);
    if (visitors)
        lay_visitors(f, visitors);
}

void cuda_ffn_load(struct ffn *f, struct loading *l, int layer)
{
    const struct shard *shard = f->c->o.shard;
    held_neurons_load(l, &f->held, layer);
    for (int i = f->held.first[layer]; i < f->held.first[layer + 1]; i++)
        cuda_ranges_load(l, &f->held.sets[i].down, &f->ranges[i]);
    for (int i = 0; i < shard->n_guests; i++)
        if (shard->guests[i].layer == layer)
            cuda_ranges_load(l, &f->held.guests[i].down, &f->guest_ranges[i]);
    cuda_experts_load(f->c, l, &f->experts, &f->held, f->ranges, layer);
}

/* ---- computing ---- */

/* Of a layer without experts. */
static int counter_of(const struct ffn *f, int layer, int set)
{
    return f->counters[layer] + set - f->held.first[layer];
}

static void fire_set(struct ffn *f, int layer, int set, const struct input *in, uint32_t n,
                     const struct gpu_sums *begin)
{
    struct gpu_counts *counts = &f->c->notes->counts[counter_of(f, layer, set)];
    cuda_fire(f->c, &f->firing, layer, &f->held.sets[set], counts, in, n, begin);
}

static void count_fixed(struct ffn *f, int layer, int set, uint32_t n)
{
    cuda_fire_count(f->c, &f->held.sets[set], n);
    f->counted[counter_of(f, layer, set)].calls++;
}

static void launch_experts(void *object, const struct operation *o)
{
    struct ffn *f = object;
    const struct sums *sums = o->sums;
    cuda_experts_compute(f->c, &f->experts, &f->firing, o->at.layer, o->in, (uint32_t)o->n,
                         &f->c->notes->counts[f->counters[o->at.layer]], &sums->of);
}

static void launch(void *object, const struct operation *o)
{
    struct ffn *f = object;
    const struct sums *sums = o->sums;
    const int first = f->held.first[o->at.layer];
    for (int i = first; i < f->held.first[o->at.layer + 1]; i++) {
        fire_set(f, o->at.layer, i, o->in, (uint32_t)o->n, i > first ? NULL : &sums->of);
        cuda_down_project(f->c, &f->held.sets[i].down, &f->ranges[i], &f->firing.of.activated, (uint32_t)o->n,
                          &sums->of, i > first);
    }
}

void cuda_ffn_compute(struct ffn *f, const struct work *w, const struct input *in, const struct sums *sums)
{
    const bool experts = cuda_experts_has(&f->experts, w->layer);
    for (int i = f->held.first[w->layer]; i < f->held.first[w->layer + 1] && !experts; i++)
        count_fixed(f, w->layer, i, w->n);
    queue_add(f->c, &(struct operation){.launch = experts ? launch_experts : launch, .object = f, .in = in,
                                        .sums = sums, .n = w->n, .at.layer = w->layer});
}

/* Own neurons that fired last; without arrays they are counted. */
static uint32_t list_live(const struct ffn *f, const struct neuron_set *set, uint32_t n, const struct live *to)
{
    return held_neurons_live(set, f->fired, f->firing.of.activated.cols, n, to);
}

uint32_t cuda_ffn_fire(struct ffn *f, const struct work *w, const struct input *in)
{
    struct cuda *c = f->c;
    const struct acts *h = &f->firing.of.activated;
    const int set = f->held.first[w->layer];
    fire_set(f, w->layer, set, in, w->n, NULL);
    count_fixed(f, w->layer, set, w->n);
    download(c, f->fired, h->f32, (size_t)(w->n * h->cols) * sizeof *f->fired);
    await(c);
    for (int64_t i = 0; c->lost && i < w->n * h->cols; i++)
        f->fired[i] = NAN; /* a lost GPU's are no numbers: whoever takes them sees it */
    return list_live(f, &f->held.sets[set].set, w->n, NULL);
}

void cuda_ffn_live(struct ffn *f, const struct work *w, const struct live *to)
{
    list_live(f, &f->held.sets[f->held.first[w->layer]].set, w->n, to);
}

/* A guest's activations into their slots, as its holder has them. */
static void place_live(struct ffn *f, const struct work *w, const struct guest *g, const struct live *v)
{
    const struct neuron_set *set = &g->set;
    struct cuda *c = f->c;
    struct acts *h = &f->firing.of.activated;
    const struct visitors *to = &f->visitors;
    const uint32_t n = v->first[w->n];
    upload(c, to->first, v->first, (w->n + 1) * sizeof *v->first);
    upload(c, to->index, v->index, n * sizeof *v->index);
    upload(c, to->value, v->value, n * sizeof *v->value);
    cuda_fire_begin(c, &f->firing, set->n_blocks * ACT_BLOCK, w->n);
    if (c->lost) /* indices that did not arrive may be any */
        return;
    gpu_place_live(&c->gpu, to->first, to->index, to->value, w->n, n, set->at.slot, h->f32, h->cols);
    if (cuda_down_reads_codes(c, &g->down, w->layer))
        gpu_quantize(&c->gpu, h, w->n);
}

void cuda_ffn_project(struct ffn *f, const struct work *w, int guest, const struct live *from, const struct sums *sums)
{
    const struct guest *g = &f->held.guests[guest];
    place_live(f, w, g, from);
    cuda_down_project(f->c, &g->down, &f->guest_ranges[guest], &f->firing.of.activated, w->n, &sums->of, true);
}

/* ---- counting ---- */

static uint64_t smaller(uint64_t a, uint64_t b) { return a < b ? a : b; }

/* Bytes of the rows and columns that were read because neurons were flagged, and fired. Of columns the GPU counts no
 * blocks: there are as many as live neurons, or all. */
static uint64_t bytes_of(const struct ffn_layer *s, uint64_t calls, const struct gpu_counts *of)
{
    const struct neuron_rows *gate = &s->gate_rows, *up = &s->up_rows;
    const struct neuron_columns *down = &s->down.columns;
    uint64_t bytes = of->bytes + of->rows_read * (up->planes ? up->rest_bytes : up->top_bytes);
    bytes += of->flagged * (gate->planes ? gate->rest_bytes : gate->top_bytes);
    if (s->down.by_column)
        bytes += of->live * down->column_bytes +
                 smaller(of->live, (calls + of->uses) * (uint64_t)down->n_blocks) * down->block_bytes;
    return bytes;
}

/* Of a layer with experts all sets are as its first one. */
static void count_of(struct ffn *f, int counter, const struct ffn_layer *s, struct device_counts *counts)
{
    struct counted *b = &f->counted[counter];
    const struct gpu_counts now = f->c->staging.notes->counts[counter], *before = &b->reported;
    const struct gpu_counts of = {.flagged = now.flagged - before->flagged, .live = now.live - before->live,
                                  .rows_read = now.rows_read - before->rows_read,
                                  .neurons = now.neurons - before->neurons,
                                  .bytes = now.bytes - before->bytes, .uses = now.uses - before->uses};
    counts->bytes += bytes_of(s, b->calls, &of);
    counts->neurons += of.neurons;
    counts->flagged += of.flagged;
    counts->live += of.live;
    b->reported = now;
    if (of.live) /* else what those calls read may not be known yet */
        b->calls = 0;
}

void cuda_ffn_count(struct ffn *f, struct device_counts *counts)
{
    for (int layer = 0; layer < f->c->hp->n_layers; layer++)
        for (int i = 0; i < f->counters[layer + 1] - f->counters[layer]; i++)
            count_of(f, f->counters[layer] + i, &f->held.sets[f->held.first[layer] + i], counts);
}
