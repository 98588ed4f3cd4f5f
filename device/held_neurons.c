#include "device/held_neurons.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "device/readers.h"

static int most_bundles(const struct model *m)
{
    int most = 0;
    for (int i = 0; i < m->hp.n_layers; i++)
        most = m->layers[i].n_bundles > most ? m->layers[i].n_bundles : most;
    return most;
}

status held_neurons_new(const struct device_options *o, struct held_neurons *h)
{
    const int n_layers = o->model->hp.n_layers;
    h->of_bundle = calloc((size_t)most_bundles(o->model), sizeof *h->of_bundle);
    h->first = calloc((size_t)n_layers + 1, sizeof *h->first);
    for (int i = 0; h->first && i < n_layers; i++)
        h->first[i + 1] = h->first[i] + o->shard->layers[i].n_sets;
    h->n_sets = h->first ? h->first[n_layers] : 0;
    h->sets = calloc((size_t)h->n_sets + 1, sizeof *h->sets);
    h->guests = calloc((size_t)o->shard->n_guests + 1, sizeof *h->guests);
    if (h->of_bundle && h->first && h->sets && h->guests)
        return ST_OK;
    log_error("out of memory for the tables of neurons");
    return ST_NOMEM;
}

void held_neurons_free(const struct device_options *o, struct held_neurons *h)
{
    for (int i = 0; h->sets && i < h->n_sets; i++)
        ffn_layer_free(&h->sets[i]);
    for (int i = 0; h->guests && i < o->shard->n_guests; i++)
        neuron_set_free(&h->guests[i].set);
    free(h->of_bundle);
    free(h->first);
    free(h->sets);
    free(h->guests);
}

void held_neurons_lay(const struct laying *to, struct held_neurons *h, int layer)
{
    const struct shard *shard = to->o->shard;
    const struct shard_layer *held = &shard->layers[layer];
    for (int i = h->first[layer]; i < h->first[layer + 1]; i++)
        ffn_layer_lay(to, layer, &held->sets[i - h->first[layer]], held->down, &h->sets[i]);
    for (int i = 0; i < shard->n_guests; i++) {
        const struct guest_neurons *g = &shard->guests[i];
        const struct bundle *of = &to->o->model->layers[g->layer].bundles[g->neurons.bundle];
        if (g->layer != layer || !g->neurons.n_spans)
            continue;
        neuron_set_lay(to, &h->guests[i].set, of, &g->neurons);
        down_lay(to, of, &h->guests[i].set, false, &h->guests[i].down);
    }
}

void held_neurons_load(struct loading *l, struct held_neurons *h, int layer)
{
    const struct shard *shard = l->o->shard;
    for (int i = h->first[layer]; i < h->first[layer + 1]; i++)
        ffn_layer_load(l, layer, &h->sets[i]);
    for (int i = 0; i < shard->n_guests; i++) {
        if (shard->guests[i].layer != layer || !h->guests[i].down.set)
            continue;
        neuron_set_load(l, &h->guests[i].set);
        down_load(l, &h->guests[i].down, &l->o->model->layers[layer].bundles[shard->guests[i].neurons.bundle]);
    }
}

static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

/* Own neurons and slots of each of a layer's bundles. */
static void measure_bundles(const struct held_neurons *h, int layer, int n_bundles)
{
    memset(h->of_bundle, 0, (size_t)n_bundles * sizeof *h->of_bundle);
    for (int i = h->first[layer]; i < h->first[layer + 1]; i++) {
        const struct neuron_set *set = &h->sets[i].set;
        struct widths *of = &h->of_bundle[set->neurons->bundle];
        of->neurons += set->n;
        of->slots += set->n_blocks * ACT_BLOCK;
    }
}

/* Those of a layer that a token needs at most: of experts as many as it uses of the widest. */
static struct widths layer_widths(const struct model *m, const struct held_neurons *h, int layer)
{
    const struct layer_weights *w = &m->layers[layer];
    struct widths all = {0}, expert = {0};
    measure_bundles(h, layer, w->n_bundles);
    for (int b = 0; b < w->n_bundles; b++) {
        const struct widths *of = &h->of_bundle[b];
        struct widths *to = w->bundles[b].routed ? &expert : &all;
        to->neurons = w->bundles[b].routed ? larger(expert.neurons, of->neurons) : all.neurons + of->neurons;
        to->slots = w->bundles[b].routed ? larger(expert.slots, of->slots) : all.slots + of->slots;
    }
    all.neurons += m->hp.n_experts_used * expert.neurons;
    all.slots += m->hp.n_experts_used * expert.slots;
    return all;
}

struct widths held_neurons_widest(const struct device_options *o, const struct held_neurons *h)
{
    struct widths widest = {0};
    for (int i = 0; i < o->model->hp.n_layers; i++) {
        const struct widths of = layer_widths(o->model, h, i);
        widest.neurons = larger(widest.neurons, of.neurons);
        widest.slots = larger(widest.slots, of.slots);
    }
    for (int i = 0; i < h->n_sets; i++) {
        widest.hidden = larger(widest.hidden, h->sets[i].fc1.rows);
        widest.sparse |= h->sets[i].decision != DECIDE_NOT && h->sets[i].set.n;
    }
    for (int i = 0; i < o->shard->n_guests; i++)
        widest.slots = larger(widest.slots, h->guests[i].set.n_blocks * ACT_BLOCK);
    return widest;
}

void firing_acts_lay(const struct laying *to, struct firing_acts *f, const struct widths *widest)
{
    const int64_t n = to->o->n_batch;
    if (widest->slots)
        lay_acts(to->arena, &f->activated, n, widest->slots);
    if (!widest->neurons)
        return;
    f->gate = lay_floats(to->arena, n * widest->neurons);
    f->up = lay_floats(to->arena, n * widest->neurons);
    if (widest->hidden)
        lay_acts(to->arena, &f->hidden, n, widest->hidden);
    if (device_reads_residual(to->o))
        lay_acts(to->arena, &f->residual, n, to->o->model->hp.d_model);
}

uint32_t held_neurons_live(const struct neuron_set *set, const float *h, int64_t cols, uint32_t n,
                           const struct live *to)
{
    uint32_t pairs = 0;
    for (uint32_t t = 0; t < n; t++) {
        if (to)
            to->first[t] = pairs;
        for (int64_t i = 0; i < set->n; i++) {
            const float value = h[t * cols + set->slot[i]];
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
