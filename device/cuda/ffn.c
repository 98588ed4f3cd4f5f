#include "device/cuda/ffn.h"

#include <math.h>
#include <stdlib.h>

#include "base/log.h"
#include "device/cuda/fire.h"
#include "device/readers.h"
#include "kernels/cuda/stream.h"

/* Neurons of another holder whose down projection is here. */
struct guest {
    struct held held;
    struct down down;
};

/* Live neurons of guests, as struct live. */
struct visitors {
    uint32_t *first, *index;         /* [n + 1], [n, neurons of a guest] */
    float *value;
};

struct ffn {
    struct cuda *c;
    int *first;                      /* [n_layers + 1] layer l has the sets [first[l], first[l + 1]) */
    struct ffn_layer *sets;          /* of all layers */
    struct guest *guests;            /* [n_guests] */
    struct firing firing;
    struct visitors visitors;
    float *fired;                    /* host [n, slots] activations of a set whose down projection is elsewhere */
};

static int n_sets(const struct ffn *f) { return f->first[f->c->hp->n_layers]; }

int cuda_ffn_counters(const struct ffn *f) { return n_sets(f); }

/* ---- memory ---- */

/* Slots of the widest set without a down projection, which the host lists. */
static int64_t listed_slots(const struct cuda *c)
{
    int64_t most = 0;
    for (int i = 0; i < c->hp->n_layers; i++) {
        const struct shard_layer *l = &c->o.shard->layers[i];
        struct neuron_set s = {0};
        if (l->n_sets && !l->down)
            neuron_set_shape(&s, c->o.model, l->sets);
        most = s.n_blocks * ACT_BLOCK > most ? s.n_blocks * ACT_BLOCK : most;
    }
    return most;
}

status cuda_ffn_new(struct cuda *c, struct ffn **out)
{
    const int n_layers = c->hp->n_layers;
    struct ffn *f = calloc(1, sizeof *f);
    if (f) {
        f->c = c;
        f->first = calloc((size_t)n_layers + 1, sizeof *f->first);
        for (int i = 0; f->first && i < n_layers; i++)
            f->first[i + 1] = f->first[i] + c->o.shard->layers[i].n_sets;
        f->sets = f->first ? calloc((size_t)n_sets(f) + 1, sizeof *f->sets) : NULL;
        f->guests = calloc((size_t)c->o.shard->n_guests + 1, sizeof *f->guests);
        f->fired = calloc((size_t)(c->o.n_batch * listed_slots(c)) + 1, sizeof *f->fired);
    }
    if (!f || !f->sets || !f->guests || !f->fired) {
        log_error("out of memory for the tables of neurons");
        cuda_ffn_free(f);
        return ST_NOMEM;
    }
    *out = f;
    return ST_OK;
}

void cuda_ffn_free(struct ffn *f)
{
    if (!f)
        return;
    for (int i = 0; f->sets && i < n_sets(f); i++)
        cuda_ffn_layer_free(&f->sets[i]);
    for (int i = 0; f->guests && i < f->c->o.shard->n_guests; i++)
        cuda_held_free(&f->guests[i].held);
    free(f->first);
    free(f->sets);
    free(f->guests);
    free(f->fired);
    free(f);
}

void cuda_ffn_lay_weights(struct ffn *f, int layer)
{
    const struct shard *shard = f->c->o.shard;
    const struct shard_layer *held = &shard->layers[layer];
    for (int i = f->first[layer]; i < f->first[layer + 1]; i++)
        cuda_ffn_layer_lay(f->c, layer, &held->sets[i - f->first[layer]], held->down, &f->sets[i]);
    for (int i = 0; i < shard->n_guests; i++) {
        if (shard->guests[i].layer != layer || !shard->guests[i].neurons.n_spans)
            continue;
        cuda_held_lay(f->c, &shard->guests[i].neurons, &f->guests[i].held);
        cuda_down_lay(f->c, layer, &f->guests[i].held, false, &f->guests[i].down);
    }
}

static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

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
    struct widths widest = {0};
    int64_t visitors = 0;
    for (int i = 0; i < n_sets(f); i++) {
        const struct ffn_layer *s = &f->sets[i];
        widest.neurons = larger(widest.neurons, s->held.set.n);
        widest.slots = larger(widest.slots, s->held.set.n_blocks * ACT_BLOCK);
        widest.hidden = larger(widest.hidden, s->fc1.rows);
        widest.sparse |= s->decision != DECIDE_NOT;
    }
    for (int i = 0; i < c->o.shard->n_guests; i++) {
        widest.slots = larger(widest.slots, f->guests[i].held.set.n_blocks * ACT_BLOCK);
        visitors = larger(visitors, f->guests[i].held.set.n);
    }
    cuda_firing_lay(c, &f->firing, &widest);
    if (visitors)
        lay_visitors(f, visitors);
}

void cuda_ffn_load(struct ffn *f, struct loader *l, int layer)
{
    const struct shard *shard = f->c->o.shard;
    for (int i = f->first[layer]; i < f->first[layer + 1]; i++)
        cuda_ffn_layer_load(l, layer, &f->sets[i]);
    for (int i = 0; i < shard->n_guests; i++) {
        if (shard->guests[i].layer != layer || !f->guests[i].down.held)
            continue;
        cuda_held_load(l, &f->guests[i].held);
        cuda_down_load(l, &f->guests[i].down, layer);
    }
}

/* ---- computing ---- */

static void fire_set(struct ffn *f, int layer, int set, const struct input *in, uint32_t n)
{
    cuda_fire(f->c, &f->firing, layer, &f->sets[set], &f->c->notes->counts[set], in, n);
}

static void launch(void *object, const struct operation *o)
{
    struct ffn *f = object;
    const struct sums *sums = o->sums;
    const int first = f->first[o->at.layer];
    for (int i = first; i < f->first[o->at.layer + 1]; i++) {
        fire_set(f, o->at.layer, i, o->in, (uint32_t)o->n);
        cuda_down_project(f->c, &f->sets[i].down, &f->firing.activated, (uint32_t)o->n, &sums->of, i > first);
    }
}

void cuda_ffn_compute(struct ffn *f, const struct work *w, const struct input *in, const struct sums *sums)
{
    for (int i = f->first[w->layer]; i < f->first[w->layer + 1]; i++)
        cuda_fire_count(f->c, &f->sets[i], w->n);
    queue_add(f->c, &(struct operation){.launch = launch, .object = f, .in = in, .sums = sums, .n = w->n,
                                        .at.layer = w->layer});
}

/* Own neurons whose activation is not zero: pairs (index, value), token by token; without arrays they are counted. */
static uint32_t list_live(const struct ffn *f, const struct neuron_set *set, uint32_t n, const struct live *to)
{
    uint32_t pairs = 0;
    for (uint32_t t = 0; t < n; t++) {
        const float *h = f->fired + t * f->firing.activated.cols;
        if (to)
            to->first[t] = pairs;
        for (int64_t i = 0; i < set->n; i++) {
            const float value = h[set->slot[i]];
            if (to && value != 0) {
                to->index[pairs] = (uint32_t)i;
                to->value[pairs] = value;
            }
            pairs += value != 0;
        }
    }
    if (to)
        to->first[n] = pairs;
    return pairs;
}

uint32_t cuda_ffn_fire(struct ffn *f, const struct work *w, const struct input *in)
{
    struct cuda *c = f->c;
    const struct acts *h = &f->firing.activated;
    const int set = f->first[w->layer];
    fire_set(f, w->layer, set, in, w->n);
    cuda_fire_count(c, &f->sets[set], w->n);
    download(c, f->fired, h->f32, (size_t)(w->n * h->cols) * sizeof *f->fired);
    await(c);
    for (int64_t i = 0; c->lost && i < w->n * h->cols; i++)
        f->fired[i] = NAN; /* a lost GPU's are no numbers: whoever takes them sees it */
    return list_live(f, &f->sets[set].held.set, w->n, NULL);
}

void cuda_ffn_live(struct ffn *f, const struct work *w, const struct live *to)
{
    list_live(f, &f->sets[f->first[w->layer]].held.set, w->n, to);
}

/* A guest's activations into their slots, as its holder has them. */
static void place_live(struct ffn *f, const struct work *w, const struct held *held, const struct live *v)
{
    struct cuda *c = f->c;
    struct acts *h = &f->firing.activated;
    const struct visitors *to = &f->visitors;
    const uint32_t n = v->first[w->n];
    upload(c, to->first, v->first, (w->n + 1) * sizeof *v->first);
    upload(c, to->index, v->index, n * sizeof *v->index);
    upload(c, to->value, v->value, n * sizeof *v->value);
    cuda_fire_begin(c, &f->firing, held->set.n_blocks * ACT_BLOCK, w->n);
    if (c->lost) /* indices that did not arrive may be any */
        return;
    gpu_place_live(&c->gpu, to->first, to->index, to->value, w->n, n, held->slot, h->f32, h->cols);
    if (readers_of(&c->o, ACTIVATED, w->layer).q8)
        gpu_quantize(&c->gpu, h, w->n);
}

void cuda_ffn_project(struct ffn *f, const struct work *w, int guest, const struct live *from, const struct sums *sums)
{
    const struct guest *g = &f->guests[guest];
    place_live(f, w, &g->held, from);
    cuda_down_project(f->c, &g->down, &f->firing.activated, w->n, &sums->of, true);
}

/* ---- counting ---- */

static uint64_t smaller(uint64_t a, uint64_t b) { return a < b ? a : b; }

/* Bytes of the rows and columns that were read because neurons were flagged, and fired. Of columns the GPU counts no
 * blocks: there are as many as live neurons, or all. */
static uint64_t bytes_of(const struct ffn_layer *s, const struct gpu_counts *of)
{
    const struct neuron_rows *gate = &s->gate_rows, *up = &s->up_rows;
    const struct neuron_columns *down = &s->down.columns;
    uint64_t bytes = of->rows_read * (up->planes ? up->rest_bytes : up->top_bytes);
    bytes += of->flagged * (gate->planes ? gate->rest_bytes : gate->top_bytes);
    if (s->down.by_column)
        bytes += of->live * down->column_bytes +
                 smaller(of->live, s->calls * (uint64_t)down->n_blocks) * down->block_bytes;
    return bytes;
}

void cuda_ffn_count(struct ffn *f, struct device_counts *counts)
{
    for (int i = 0; i < n_sets(f); i++) {
        struct ffn_layer *s = &f->sets[i];
        const struct gpu_counts now = f->c->staging.notes->counts[i], *before = &s->reported;
        const struct gpu_counts of = {.flagged = now.flagged - before->flagged, .live = now.live - before->live,
                                      .rows_read = now.rows_read - before->rows_read};
        counts->bytes += bytes_of(s, &of);
        counts->flagged += of.flagged;
        counts->live += of.live;
        s->reported = now;
        if (of.live) /* else what those calls read may not be known yet */
            s->calls = 0;
    }
}
