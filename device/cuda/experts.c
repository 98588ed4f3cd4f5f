#include "device/cuda/experts.h"

#include <math.h>
#include <stdlib.h>

#include "base/log.h"
#include "device/cuda/down.h"
#include "device/cuda/router.h"
#include "device/readers.h"
#include "kernels/cuda/products.h"
#include "kernels/cuda/stream.h"

/* ---- memory ---- */

status cuda_experts_new(const struct cuda *c, struct experts *e)
{
    *e = (struct experts){.layers = calloc((size_t)c->hp->n_layers, sizeof *e->layers)};
    if (e->layers)
        return ST_OK;
    log_error("out of memory for the tables of neurons");
    return ST_NOMEM;
}

void cuda_experts_free(struct experts *e) { free(e->layers); }

static int larger(int64_t a, int64_t b) { return (int)(a > b ? a : b); }

/* Of a matrix that the set has. */
static void add_type(struct set_types *t, enum dtype type, bool has)
{
    for (int i = 0; i < t->n; i++)
        has = has && t->of[i] != type;
    if (has)
        t->of[t->n++] = type;
}

static void add_set(struct expert_layer *l, const struct ffn_layer *s)
{
    const struct down *down = &s->down;
    l->experts += s->of->routed;
    l->shared += !s->of->routed;
    l->rows = larger(l->rows, s->set.n);
    l->slots = larger(l->slots, down_slots(down, &s->set));
    l->ranges = larger(l->ranges, down->by_column ? s->set.n_blocks : 0); /* the most that there can be */
    l->gate_planes |= s->gate_rows.planes;
    l->up_planes |= s->up_rows.planes;
    add_type(&l->packed, s->gate.type, s->gate.groups > 0);
    add_type(&l->packed, s->up.type, s->up.groups > 0);
    add_type(&l->gate_rows, s->gate_rows.type, s->gate_rows.rows > 0);
    add_type(&l->up_rows, s->up_rows.type, s->up_rows.rows > 0);
    add_type(&l->down, down->matrix.type, !down->by_column);
    add_type(&l->columns, down->columns.type, down->by_column);
}

/* How many of n sets are of a bundle. */
static int sets_of(const struct ffn_layer *sets, int n, const struct bundle *of)
{
    int same = 0;
    for (int i = 0; i < n; i++)
        same += sets[i].of == of;
    return same;
}

void cuda_experts_lay(struct cuda *c, struct experts *e, const struct held_neurons *held, int layer)
{
    const struct ffn_layer *sets = held->sets + held->first[layer];
    struct expert_layer *l = &e->layers[layer];
    *l = (struct expert_layer){0};
    if (!model_has_experts(c->o.model, layer))
        return;
    l->n_sets = held->first[layer + 1] - held->first[layer];
    l->sets = arena_alloc(&c->arena, (size_t)l->n_sets * sizeof *l->sets);
    for (int i = 0; i < l->n_sets; i++) {
        add_set(l, &sets[i]);
        if (sets[i].of->routed)
            l->of_expert = larger(l->of_expert, sets_of(sets, l->n_sets, sets[i].of));
    }
}

void cuda_experts_lay_buffers(struct cuda *c, struct experts *e, int64_t neurons)
{
    const int64_t n = c->o.n_batch, pairs = n * c->hp->n_experts_used;
    int most = 0;
    for (int i = 0; i < c->hp->n_layers; i++)
        most = larger(most, cuda_experts_has(e, i) ? e->layers[i].n_sets : 0);
    if (!most)
        return;
    e->neurons = neurons;
    e->of = arena_alloc(&c->arena, (size_t)most * sizeof *e->of);
    e->n = lay_words(&c->arena, 1);
    e->token = lay_words(&c->arena, pairs);
    e->weight = lay_floats(&c->arena, pairs + n);
    if (n > 1)
        lay_acts(&c->arena, &e->gathered, pairs, c->hp->d_model);
}

/* ---- filling ---- */

/* What is shared may have other types than experts, and only theirs have whole blocks. */
static bool reads_codes(const struct cuda *c, const struct down *d, int layer)
{
    return cuda_down_reads_codes(c, d, layer) && dtype_is_quantised(d->matrix.type);
}

static struct gpu_set set_of(const struct cuda *c, const struct ffn_layer *s, const struct ranges *ranges, int layer)
{
    const bool column = s->down.by_column;
    return (struct gpu_set){
        .expert = s->of->routed ? s->set.neurons->bundle : GPU_ALL_TOKENS, .n = (int32_t)s->set.n,
        .slots = (int32_t)down_slots(&s->down, &s->set), .quantised = reads_codes(c, &s->down, layer),
        .slot = s->set.at.slot, .column = column ? s->set.at.column : NULL, .gate = s->gate, .up = s->up,
        .gate_rows = s->gate_rows, .up_rows = s->up_rows, .bias = s->bias, .up_bias = s->up_bias, .bound = s->bound,
        .gate_slope = s->gate_slope, .gate_offset = s->gate_offset, .up_slope = s->up_slope, .up_offset = s->up_offset,
        .down = s->down.matrix, .columns = s->down.columns, .ranges = ranges->range, .n_ranges = ranges->n,
        .bytes = ffn_layer_fixed_bytes(s) + (column ? 0 : packed_bytes(&s->down.matrix))};
}

void cuda_experts_load(const struct cuda *c, struct loading *l, struct experts *e, const struct held_neurons *held,
                       const struct ranges *ranges, int layer)
{
    const struct expert_layer *of = &e->layers[layer];
    const int first = held->first[layer];
    struct gpu_set *sets = calloc((size_t)of->n_sets + 1, sizeof *sets);
    if (!sets && !l->failed) {
        log_error("out of memory for the tables of neurons");
        l->failed = ST_NOMEM;
    }
    for (int i = 0; i < of->n_sets && !l->failed; i++)
        sets[i] = set_of(c, &held->sets[first + i], &ranges[first + i], layer);
    if (of->n_sets && !l->failed)
        load_array(l, of->sets, sets, (size_t)of->n_sets * sizeof *sets);
    free(sets);
}

/* ---- a step ---- */

/* The layer's shares of n tokens. */
static struct gpu_shares shares_of(const struct cuda *c, const struct experts *e, int layer, uint32_t n)
{
    const struct expert_layer *l = &e->layers[layer];
    const int64_t chosen = n * c->hp->n_experts_used * l->of_expert;
    return (struct gpu_shares){.sets = l->sets, .n_sets = l->n_sets, .of = e->of, .n = e->n, .token = e->token,
                               .weight = e->weight,
                               .most = l->shared + (int)(chosen < l->experts ? chosen : l->experts),
                               .rows = l->rows, .slots = l->slots, .ranges = l->ranges, .gate_planes = l->gate_planes,
                               .up_planes = l->up_planes, .outputs = (int)c->hp->d_model};
}

struct computing {
    struct cuda *c;
    const struct experts *e;
    struct firing *f;
    const struct expert_layer *layer;
    struct gpu_shares shares;
    const struct acts *x;
    int64_t n, most_pairs;
    struct gpu_counts *counts;
    struct gpu_clearing clearing;    /* of the sums */
};

/* All gates and ups, or gates alone where ups are read one by one. */
static void multiply(const struct computing *w)
{
    for (int i = 0; i < w->layer->packed.n; i++)
        gpu_matmul_shares(&w->c->gpu, &w->shares, w->layer->packed.of[i], w->x, &w->e->gathered, w->n, w->f->of.gate,
                          w->f->of.up);
}

static void fire_all(const struct computing *w)
{
    multiply(w);
    gpu_activate_shares(&w->c->gpu, &w->shares, w->c->hp->activation, w->f->of.gate,
                        w->c->hp->has_gate ? w->f->of.up : NULL, w->n, &w->f->of.activated, &w->clearing);
}

static void estimate(const struct computing *w, bool ups, float *to)
{
    const struct set_types *types = ups ? &w->layer->up_rows : &w->layer->gate_rows;
    for (int i = 0; i < types->n; i++)
        gpu_estimate_shares(&w->c->gpu, &w->shares, types->of[i], ups, w->x, &w->e->gathered, w->n, to);
}

/* Pairs of what decides above a bound; keep: it is their gate. */
static void pick(const struct computing *w, float bound, bool by_bound, bool keep)
{
    gpu_pick_shares(&w->c->gpu, &w->shares, w->f->of.gate, w->n, bound, by_bound, keep, &w->f->pairs, w->counts,
                    w->f->of.activated.f32, &w->clearing);
}

static void compute_gates(const struct computing *w)
{
    for (int i = 0; i < w->layer->gate_rows.n && cuda_launched(w->c); i++)
        gpu_gate_share_pairs(&w->c->gpu, &w->shares, w->layer->gate_rows.of[i], w->x, &w->e->gathered, w->most_pairs,
                             &w->f->pairs);
}

/* all: whatever a pair's gate is. */
static void activate_pairs(const struct computing *w, bool all)
{
    for (int i = 0; i < w->layer->up_rows.n && cuda_launched(w->c); i++) /* else there may be no list of pairs */
        gpu_activate_share_pairs(&w->c->gpu, &w->shares, w->layer->up_rows.of[i], w->c->hp->activation, w->x,
                                 &w->e->gathered, all, w->most_pairs, &w->f->pairs, w->f->of.activated.f32, w->counts);
}

static void decide_by_gate(const struct computing *w)
{
    multiply(w);
    pick(w, 0, false, true);
    activate_pairs(w, true);
}

static void decide_by_estimate(const struct computing *w)
{
    estimate(w, false, w->f->of.gate);
    pick(w, 0, true, false);
    compute_gates(w);
    activate_pairs(w, false);
}

static void decide_by_product(const struct computing *w, int layer)
{
    estimate(w, false, w->f->of.gate);
    estimate(w, true, w->f->of.up);
    gpu_estimate_share_products(&w->c->gpu, &w->shares, w->c->hp->activation, w->f->of.gate, w->f->of.up, w->n);
    pick(w, nextafterf(skip_threshold(&w->c->o, layer), -INFINITY), false, false);
    compute_gates(w);
    activate_pairs(w, true);
}

static void fire(const struct computing *w, enum decision decision, int layer)
{
    switch (decision) {
    case DECIDE_GATE: decide_by_gate(w); break;
    case DECIDE_ESTIMATE: decide_by_estimate(w); break;
    case DECIDE_PRODUCT: decide_by_product(w, layer); break;
    default: fire_all(w); break; /* no MLP predicts experts' neurons (sparsity/mode.h) */
    }
}

static void project(const struct computing *w, const struct gpu_sums *sums)
{
    for (int i = 0; i < w->layer->down.n; i++)
        gpu_matmul_partial_shares(&w->c->gpu, &w->shares, w->layer->down.of[i], &w->f->of.activated, w->n, sums);
    for (int i = 0; i < w->layer->columns.n; i++)
        gpu_mix_shares(&w->c->gpu, &w->shares, w->layer->columns.of[i], &w->f->of.activated, w->n, sums);
}

void cuda_experts_compute(struct cuda *c, const struct experts *e, struct firing *f, int layer, const struct input *in,
                          uint32_t n, struct gpu_counts *counts, const struct gpu_sums *sums)
{
    const struct readers reads = readers_of(&c->o, X_OF_FFN, layer);
    const struct gpu_router router = cuda_router_of(c, layer);
    const enum decision decision = decide(&c->o, layer);
    const struct computing w = {c, e, f, &e->layers[layer], shares_of(c, e, layer, n), &in->acts, n, n * e->neurons,
                                counts,
                                {.sums = *sums, .n_units = n * c->hp->d_model, .n_broken = n}};
    gpu_share_tokens(&c->gpu, &w.shares, &router, &in->routes, n, decision == DECIDE_NOT, counts);
    gpu_gather(&c->gpu, &w.shares, w.x, n, reads.q8, reads.f32, &e->gathered);
    fire(&w, decision, layer);
    project(&w, sums);
}
