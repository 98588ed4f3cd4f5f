#include "device/cpu/ffn.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "device/cpu/down.h"
#include "device/cpu/fire.h"
#include "device/cpu/relayout.h"
#include "device/readers.h"

struct ffn {
    struct cpu *c;
    struct held_neurons held;
    struct firing firing;
    struct down_room room;
    uint8_t *aside;                  /* rows or columns of a layer whose layout changes; NULL: none ever does */
    struct observed_neurons *observed; /* room for those of a layer */
};

status ffn_new(struct cpu *c, struct ffn **out)
{
    struct ffn *f = calloc(1, sizeof *f);
    struct live_scratch *live = calloc((size_t)c->o.n_threads, sizeof *live);
    if (!f || !live) {
        log_error("out of memory for the tables of neurons");
        free(live);
        free(f);
        return ST_NOMEM;
    }
    *f = (struct ffn){.c = c, .firing.live = live};
    status st = held_neurons_new(&c->o, &f->held);
    st = st ? st : shares_new(c, &f->held, &f->firing.shares);
    if (!st && !(f->observed = calloc((size_t)f->firing.shares.most, sizeof *f->observed))) {
        log_error("out of memory for the tables of neurons");
        st = ST_NOMEM;
    }
    if (st)
        ffn_free(f);
    else
        *out = f;
    return st;
}

void ffn_free(struct ffn *f)
{
    if (!f)
        return;
    held_neurons_free(&f->c->o, &f->held);
    shares_free(&f->firing.shares);
    free(f->observed);
    free(f->firing.live);
    free(f);
}

void ffn_lay_weights(struct ffn *f, int layer)
{
    const struct laying to = cpu_laying(f->c);
    held_neurons_lay(&to, &f->held, layer);
}

/* Whether parts are added: those of guests, of a layer's further sets, and of experts that not all tokens have
 * chosen. */
static bool adds_parts(const struct ffn *f)
{
    for (int i = 0; i < f->c->hp->n_layers; i++)
        if (f->c->o.shard->layers[i].n_sets > !model_has_experts(f->c->o.model, i))
            return true;
    return f->c->o.shard->n_guests > 0;
}

void ffn_lay_buffers(struct ffn *f)
{
    struct cpu *c = f->c;
    const struct widths widest = held_neurons_widest(&c->o, &f->held);
    size_t aside = 0;
    for (int i = 0; i < f->held.n_sets; i++)
        aside = relayout_aside(&f->held.sets[i]) > aside ? relayout_aside(&f->held.sets[i]) : aside;
    firing_lay(c, &f->firing, &widest);
    if (aside)
        f->aside = arena_alloc(&c->arena, aside);
    if (adds_parts(f))
        down_room_lay(c, &f->room);
}

void ffn_load(struct ffn *f, struct loading *l, int layer) { held_neurons_load(l, &f->held, layer); }

static void fire_layer(struct ffn *f, const struct work *w, const struct input *in)
{
    shares_make(f->c, &f->firing.shares, &f->held, w->layer, in, w->n);
    fire(f->c, &f->firing, w->layer, in, w->n);
}

/* Sets whose neurons nearly all fire are laid out anew. */
static void relayout_layer(struct ffn *f)
{
    for (int i = 0; i < f->firing.shares.n; i++)
        relayout(f->c, f->firing.shares.of[i].s, f->aside);
}

void ffn_compute(struct ffn *f, const struct work *w, const struct input *in, struct sums *sums)
{
    const struct shares *shares = &f->firing.shares;
    fire_layer(f, w, in);
    down_project(f->c, &f->room, shares->of, shares->n, w->n, DOWN_BEGINS, sums->sum);
    relayout_layer(f);
}

void ffn_observe(const struct ffn *f, const struct work *w, const struct input *in)
{
    const struct shares *shares = &f->firing.shares;
    const struct device_options *o = &f->c->o;
    const bool experts = model_has_experts(o->model, w->layer);
    for (int i = 0; i < shares->n; i++) {
        const struct share *of = &shares->of[i];
        f->observed[i] = (struct observed_neurons){.first = of->s->of->first + of->s->set.neurons->spans->begin,
                                                   .n = of->s->set.n, .n_tokens = of->n,
                                                   .token = of->n < w->n ? of->token : NULL, .h = of->h.f32,
                                                   .stride = of->h.cols};
    }
    const struct observed seen = {.layer = w->layer, .n = w->n, .x = in->acts.f32,
                                  .expert = experts ? in->routes.expert : NULL,
                                  .weight = experts ? in->routes.weight : NULL, .neurons = f->observed,
                                  .n_neurons = shares->n};
    o->observe(o->observe_arg, &seen);
}

/* Own neurons that fired last; without arrays they are counted. */
static uint32_t list_live(const struct ffn *f, uint32_t n, const struct live *to)
{
    const struct share *of = f->firing.shares.of; /* the only one */
    return held_neurons_live(&of->s->set, of->h.f32, of->h.cols, n, to);
}

uint32_t ffn_fire(struct ffn *f, const struct work *w, const struct input *in)
{
    fire_layer(f, w, in);
    return list_live(f, w->n, NULL);
}

void ffn_live(struct ffn *f, const struct work *w, const struct live *to)
{
    list_live(f, w->n, to);
    relayout_layer(f);
}

/* A guest's activations into their slots, as its holder has them. */
static void place_live(struct ffn *f, int layer, uint32_t n, const struct live *v, const struct neuron_set *set)
{
    struct acts *h = &f->firing.of.activated;
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
    const struct guest *g = &f->held.guests[guest];
    place_live(f, w->layer, w->n, from, &g->set);
    const struct share part = {.down = &g->down, .n = w->n, .h = f->firing.of.activated};
    down_project(f->c, &f->room, &part, 1, w->n, DOWN_ADDS, sums->sum);
}
