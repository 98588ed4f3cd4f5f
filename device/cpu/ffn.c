#include "device/cpu/ffn.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "device/cpu/fire.h"
#include "device/cpu/relayout.h"
#include "device/readers.h"

/* Neurons of another holder whose down projection is here. */
struct guest {
    struct neuron_set set;
    struct down down;
};

struct ffn {
    struct cpu *c;
    int *first;                      /* [n_layers + 1] layer l has the sets [first[l], first[l + 1]) */
    struct ffn_layer *sets;          /* of all layers */
    struct guest *guests;            /* [n_guests] */
    struct firing firing;
    double *other;                   /* [n, d] the part of a guest or of a layer's further sets; NULL: there are none */
    uint8_t *aside;                  /* rows or columns of a layer whose layout changes; NULL: none ever does */
};

status ffn_new(struct cpu *c, struct ffn **out)
{
    const int n_layers = c->hp->n_layers;
    struct ffn *f = calloc(1, sizeof *f);
    if (f) {
        f->c = c;
        f->first = calloc((size_t)n_layers + 1, sizeof *f->first);
        for (int i = 0; f->first && i < n_layers; i++)
            f->first[i + 1] = f->first[i] + c->o.shard->layers[i].n_sets;
        f->sets = f->first ? calloc((size_t)f->first[n_layers] + 1, sizeof *f->sets) : NULL;
        f->guests = calloc((size_t)c->o.shard->n_guests + 1, sizeof *f->guests);
        f->firing.live = calloc((size_t)c->o.n_threads, sizeof *f->firing.live);
    }
    if (!f || !f->sets || !f->guests || !f->firing.live) {
        log_error("out of memory for the tables of neurons");
        ffn_free(f);
        return ST_NOMEM;
    }
    *out = f;
    return ST_OK;
}

void ffn_free(struct ffn *f)
{
    if (!f)
        return;
    free(f->first);
    free(f->sets);
    free(f->guests);
    free(f->firing.live);
    free(f);
}

void ffn_lay_weights(struct ffn *f, int layer)
{
    const struct shard *shard = f->c->o.shard;
    const struct shard_layer *held = &shard->layers[layer];
    for (int i = f->first[layer]; i < f->first[layer + 1]; i++)
        ffn_layer_lay(f->c, layer, &held->sets[i - f->first[layer]], held->down, &f->sets[i]);
    for (int i = 0; i < shard->n_guests; i++) {
        if (shard->guests[i].layer != layer || !shard->guests[i].neurons.n_spans)
            continue;
        neuron_set_lay(f->c, &shard->guests[i].neurons, &f->guests[i].set);
        down_lay(f->c, layer, &f->guests[i].set, false, &f->guests[i].down);
    }
}

static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

/* Whether anything is added to the part of a layer's first set. */
static bool adds_parts(const struct ffn *f)
{
    for (int i = 0; i < f->c->hp->n_layers; i++)
        if (f->c->o.shard->layers[i].n_sets > 1)
            return true;
    return f->c->o.shard->n_guests > 0;
}

void ffn_lay_buffers(struct ffn *f)
{
    struct cpu *c = f->c;
    struct widths widest = {0};
    size_t aside = 0;
    for (int i = 0; i < f->first[c->hp->n_layers]; i++) {
        const struct ffn_layer *s = &f->sets[i];
        widest.neurons = larger(widest.neurons, s->set.n);
        widest.slots = larger(widest.slots, s->set.n_blocks * ACT_BLOCK);
        widest.hidden = larger(widest.hidden, s->fc1.rows);
        widest.sparse |= s->decision != DECIDE_NOT && s->set.n;
        aside = relayout_aside(s) > aside ? relayout_aside(s) : aside;
    }
    for (int i = 0; i < c->o.shard->n_guests; i++)
        widest.slots = larger(widest.slots, f->guests[i].set.n_blocks * ACT_BLOCK);
    firing_lay(c, &f->firing, &widest);
    if (aside)
        f->aside = arena_alloc(&c->arena, aside);
    if (adds_parts(f))
        f->other = arena_alloc(&c->arena, (size_t)(c->o.n_batch * c->hp->d_model) * sizeof *f->other);
}

void ffn_load(struct ffn *f, struct loading *l, int layer)
{
    const struct shard *shard = f->c->o.shard;
    for (int i = f->first[layer]; i < f->first[layer + 1]; i++)
        ffn_layer_load(l, layer, &f->sets[i]);
    for (int i = 0; i < shard->n_guests; i++)
        if (shard->guests[i].layer == layer)
            down_load(l, &f->guests[i].down, layer);
}

static void add_other(const struct ffn *f, uint32_t n, double *sum)
{
    for (int64_t i = 0; i < n * f->c->hp->d_model; i++)
        sum[i] += f->other[i];
}

void ffn_compute(struct ffn *f, const struct work *w, const struct input *in, struct sums *sums)
{
    const int first = f->first[w->layer];
    for (int i = first; i < f->first[w->layer + 1]; i++) {
        struct ffn_layer *s = &f->sets[i];
        fire(f->c, &f->firing, w->layer, s, in, w->n);
        down_project(f->c, &s->down, &f->firing.activated, w->n, i == first ? sums->sum : f->other);
        if (i > first)
            add_other(f, w->n, sums->sum);
        relayout(f->c, w->layer, s, f->aside);
    }
}

const float *ffn_activated(const struct ffn *f) { return f->firing.activated.f32; }

/* Own neurons whose activation is not zero: pairs (index, value), token by token; without arrays they are counted. */
static uint32_t list_live(const struct ffn *f, const struct neuron_set *set, uint32_t n, const struct live *to)
{
    uint32_t pairs = 0;
    for (uint32_t t = 0; t < n; t++) {
        const float *h = f->firing.activated.f32 + t * f->firing.activated.cols;
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

uint32_t ffn_fire(struct ffn *f, const struct work *w, const struct input *in)
{
    struct ffn_layer *s = &f->sets[f->first[w->layer]];
    fire(f->c, &f->firing, w->layer, s, in, w->n);
    return list_live(f, &s->set, w->n, NULL);
}

void ffn_live(struct ffn *f, const struct work *w, const struct live *to)
{
    struct ffn_layer *s = &f->sets[f->first[w->layer]];
    list_live(f, &s->set, w->n, to);
    relayout(f->c, w->layer, s, f->aside);
}

/* A guest's activations into their slots, as its holder has them. */
static void place_live(struct ffn *f, int layer, uint32_t n, const struct live *v, const struct neuron_set *set)
{
    struct acts *h = &f->firing.activated;
    h->cols = set->n_blocks * ACT_BLOCK;
    memset(h->f32, 0, (size_t)(n * h->cols) * sizeof(float));
    for (uint32_t t = 0; t < n; t++)
        for (uint32_t i = v->first[t]; i < v->first[t + 1]; i++)
            h->f32[t * h->cols + set->slot[v->index[i]]] = v->value[i];
    if (readers_of(&f->c->o, ACTIVATED, layer).q8)
        f->c->o.kernels->quantize(h, 0, n);
}

void ffn_project(struct ffn *f, const struct work *w, int guest, const struct live *from, struct sums *sums)
{
    const struct guest *g = &f->guests[guest];
    place_live(f, w->layer, w->n, from, &g->set);
    down_project(f->c, &g->down, &f->firing.activated, w->n, f->other);
    add_other(f, w->n, sums->sum);
}
