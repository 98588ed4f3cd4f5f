#include "device/cpu/shares.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "device/readers.h"

/* The most of a layer. */
static int most_sets(const struct cpu *c, const struct held_neurons *held)
{
    int most = 1; /* a guest */
    for (int i = 0; i < c->hp->n_layers; i++)
        most = held->first[i + 1] - held->first[i] > most ? held->first[i + 1] - held->first[i] : most;
    return most;
}

status shares_new(const struct cpu *c, const struct held_neurons *held, struct shares *out)
{
    const int most = most_sets(c, held);
    *out = (struct shares){.most = most, .of = calloc((size_t)most, sizeof *out->of),
                           .held = calloc((size_t)c->hp->n_experts + 1, sizeof *out->held)};
    if (out->of && out->held)
        return ST_OK;
    log_error("out of memory for the tables of neurons");
    return ST_NOMEM;
}

void shares_free(struct shares *s)
{
    free(s->of);
    free(s->held);
}

/* ---- memory ---- */

static void lay_lanes(struct cpu *c, struct lane_acts *l, int64_t n)
{
    lane_acts_shape(l, c->hp->d_model);
    const int64_t blocks = lane_acts_blocks(l);
    l->codes = arena_alloc(&c->arena, (size_t)(n * lane_acts_codes(l)));
    l->scale = lay_floats(&c->arena, n * blocks);
    l->scaled_sum = lay_floats(&c->arena, n * blocks);
    l->minus_sum = lay_integers(&c->arena, n * blocks);
    l->minus_sum_low = lay_integers(&c->arena, n * blocks);
}

void shares_lay(struct cpu *c, struct shares *s, bool sparse)
{
    const int64_t n = c->o.n_batch, pairs = n * c->hp->n_experts_used;
    if (sparse)
        lay_lanes(c, &s->all, n);
    if (!c->hp->n_experts)
        return;
    s->first = lay_words(&c->arena, c->hp->n_experts + 2);
    s->token = lay_words(&c->arena, pairs);
    s->weight = lay_floats(&c->arena, pairs + n);
    lay_acts(&c->arena, &s->x, pairs, c->hp->d_model);
    if (sparse)
        lay_lanes(c, &s->lanes, pairs);
}

/* ---- views ---- */

static struct acts acts_from(const struct acts *a, int64_t token)
{
    return acts_slice(a, token, 0, a->cols);
}

static struct lane_acts lanes_from(const struct lane_acts *l, int64_t token, const float *f32)
{
    struct lane_acts from = *l;
    from.f32 = f32;
    if (!l->codes)
        return from;
    from.codes += token * lane_acts_codes(l);
    from.scale += token * lane_acts_blocks(l);
    from.scaled_sum += token * lane_acts_blocks(l);
    from.minus_sum += token * lane_acts_blocks(l);
    from.minus_sum_low += token * lane_acts_blocks(l);
    return from;
}

/* ---- which tokens ---- */

/* Tokens by the experts that they have chosen. */
static void sort_tokens(const struct cpu *c, struct shares *s, const struct layer_weights *w, const struct routes *r,
                        uint32_t n)
{
    const int64_t used = c->hp->n_experts_used, weights = model_route_weights(c->hp), experts = c->hp->n_experts;
    memset(s->first, 0, (size_t)(experts + 2) * sizeof *s->first);
    for (int64_t i = 0; i < n * used; i++)
        s->first[r->expert[i] + 2]++;
    for (int64_t e = 1; e < experts; e++)
        s->first[e + 2] += s->first[e + 1];
    for (uint32_t t = 0; t < n; t++) { /* first[e + 1] goes from e's begin to its end */
        for (int64_t k = 0; k < used; k++) {
            const uint32_t at = s->first[r->expert[t * used + k] + 1]++;
            s->token[at] = t;
            s->weight[at] = r->weight[t * weights + k];
        }
        if (w->shared_router.data)
            s->weight[n * used + t] = r->weight[t * weights + used];
    }
}

struct gathering {
    const struct cpu *c;
    struct shares *s;
    const struct acts *x;
    int layer;
    uint32_t n;
};

static void copy_token(struct acts *to, int64_t i, const struct acts *from, int64_t t, struct readers r)
{
    const size_t cols = (size_t)from->cols;
    if (r.f32)
        memcpy(to->f32 + i * to->cols, from->f32 + t * from->cols, cols * sizeof(float));
    if (!r.q8)
        return;
    memcpy(to->codes + i * to->cols, from->codes + t * from->cols, cols);
    memcpy(to->blocks + i * to->cols / ACT_BLOCK, from->blocks + t * from->cols / ACT_BLOCK,
           cols / ACT_BLOCK * sizeof *to->blocks);
}

/* Side by side what the tokens of a bundle read. */
static void gather_bundles(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct gathering *g = arg;
    struct shares *s = g->s;
    const struct readers r = readers_of(&g->c->o, X_OF_FFN, g->layer);
    (void)thread;
    for (int64_t b = begin; b < end; b++) {
        const uint32_t first = s->first[b], last = s->first[b + 1];
        if (!s->held[b] || last - first == g->n)
            continue;
        for (uint32_t i = first; i < last; i++)
            copy_token(&s->x, i, g->x, s->token[i], r);
        if (s->lanes.codes && r.q8)
            g->c->o.kernels->spread(&s->x, first, last, &s->lanes);
    }
}

static void spread_tokens(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct gathering *g = arg;
    (void)thread;
    g->c->o.kernels->spread(g->x, begin, end, &g->s->all);
}

/* ---- shares ---- */

/* A set for all tokens. */
static struct share whole_share(const struct shares *s, struct ffn_layer *of, const struct acts *x, uint32_t n)
{
    return (struct share){.s = of, .down = &of->down, .n = n, .x = *x, .lanes = lanes_from(&s->all, 0, x->f32)};
}

/* An expert's. */
static struct share routed_share(const struct shares *s, struct ffn_layer *of, int bundle, const struct acts *x,
                                 uint32_t n)
{
    const uint32_t first = s->first[bundle];
    struct share share = whole_share(s, of, x, s->first[bundle + 1] - first);
    share.token = s->token + first;
    share.weight = s->weight + first;
    if (share.n < n) {
        share.x = acts_from(&s->x, first);
        share.lanes = lanes_from(&s->lanes, first, share.x.f32);
    }
    return share;
}

/* Those of all tokens, or the others. */
static void add_shares(struct shares *s, const struct held_neurons *held, int layer, const struct acts *x, uint32_t n,
                       const float *shared_weight, bool all)
{
    for (int i = held->first[layer]; i < held->first[layer + 1]; i++) {
        struct ffn_layer *of = &held->sets[i];
        const int bundle = of->set.neurons->bundle;
        struct share share = of->of->routed ? routed_share(s, of, bundle, x, n) : whole_share(s, of, x, n);
        if (!of->of->routed)
            share.weight = shared_weight;
        s->held[bundle] = true;
        if (share.n && (share.n == n) == all)
            s->of[s->n++] = share;
    }
}

void shares_make(struct cpu *c, struct shares *s, const struct held_neurons *held, int layer, const struct input *in,
                 uint32_t n)
{
    const struct layer_weights *w = &c->o.model->layers[layer];
    const bool experts = model_has_experts(c->o.model, layer);
    struct gathering g = {c, s, &in->acts, layer, n};
    const float *shared_weight = NULL;
    s->n = 0;
    if (experts) {
        sort_tokens(c, s, w, &in->routes, n);
        memset(s->held, 0, (size_t)w->n_bundles * sizeof *s->held);
        if (w->shared_router.data)
            shared_weight = s->weight + n * c->hp->n_experts_used;
    }
    add_shares(s, held, layer, &in->acts, n, shared_weight, true);
    if (experts)
        add_shares(s, held, layer, &in->acts, n, shared_weight, false);
    if (s->all.codes && decide(&c->o, layer) != DECIDE_NOT)
        pool_for(c->o.pool, n, 4, spread_tokens, &g);
    if (experts && n > 1)
        pool_for(c->o.pool, c->hp->n_experts, 1, gather_bundles, &g);
}
