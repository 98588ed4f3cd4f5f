#include "device/cuda/fire.h"

#include <math.h>

#include "device/cuda/down.h"
#include "device/readers.h"
#include "kernels/cuda/products.h"
#include "kernels/cuda/stream.h"

struct fire {
    struct cuda *c;
    struct firing *at;
    const struct ffn_layer *s;
    const struct acts *x;
    int64_t n, own;            /* tokens, neurons */
    struct gpu_counts *counts;
    bool quantised;            /* the activations */
    struct gpu_clearing clearing;
};

/* ---- memory ---- */

void cuda_firing_lay(struct cuda *c, struct firing *f, const struct widths *widest)
{
    const int64_t n = c->o.n_batch;
    const struct laying to = cuda_laying(c);
    firing_acts_lay(&to, &f->of, widest);
    if (!widest->sparse)
        return;
    f->pairs.n = lay_words(&c->arena, 1);
    f->pairs.row = lay_integers(&c->arena, n * widest->neurons);
    f->pairs.token = lay_integers(&c->arena, n * widest->neurons);
    f->pairs.gate = lay_floats(&c->arena, n * widest->neurons);
    if (c->hp->n_experts)
        f->pairs.share = lay_integers(&c->arena, n * widest->neurons);
}

/* ---- the steps ---- */

/* Products of all own rows of a matrix into y [n, own]. */
static struct gpu_product product_of(const struct fire *f, const struct packed *m, const float *bias, float *y)
{
    return (struct gpu_product){.m = *m, .y = y, .y_stride = f->own, .bias = bias};
}

static void compute_gates(const struct fire *f)
{
    if (!cuda_launched(f->c))
        return;
    gpu_gate_pairs(&f->c->gpu, &f->s->gate_rows, f->x, f->s->bias, f->own * f->n, &f->at->pairs);
}

/* Pairs of what decides above a bound; their gates are then computed. */
static void pick(const struct fire *f, float bound, const float *bound_of)
{
    gpu_pick(&f->c->gpu, f->at->of.gate, f->own, f->own, f->n, bound, bound_of, false, &f->at->pairs, f->counts,
             &f->clearing);
    compute_gates(f);
}

/* Up of the pairs, and their activations into the slots; all: whatever their gate is. */
static void activate_pairs(const struct fire *f, bool all)
{
    const struct ffn_layer *s = f->s;
    if (!cuda_launched(f->c)) /* then there may be no list of pairs */
        return;
    gpu_activate_pairs(&f->c->gpu, f->c->hp->activation, s->has_gate ? &s->up_rows : NULL, s->up_bias, f->x, all,
                       f->own * f->n,
                       &f->at->pairs, s->set.at.slot, f->at->of.activated.f32, f->at->of.activated.cols, f->counts);
}

static void fire_all(const struct fire *f)
{
    const struct ffn_layer *s = f->s;
    const struct gpu_product p[] = {product_of(f, &s->gate, s->bias, f->at->of.gate),
                                    product_of(f, &s->up, s->up_bias, f->at->of.up)};
    const float *gate = s->has_gate ? f->at->of.gate : NULL, *up = s->has_gate ? f->at->of.up : f->at->of.gate;
    gpu_matmul(&f->c->gpu, p, s->has_gate ? 2 : 1, f->x, f->n);
    gpu_activate(&f->c->gpu, f->c->hp->activation, gate, up, f->own, f->own, f->n,
                 s->set.whole ? NULL : s->set.at.slot, &f->at->of.activated, f->quantised, &f->clearing);
}

static void decide_by_gate(const struct fire *f)
{
    const struct gpu_product p = product_of(f, &f->s->gate, f->s->bias, f->at->of.gate);
    gpu_matmul(&f->c->gpu, &p, 1, f->x, f->n);
    gpu_pick(&f->c->gpu, f->at->of.gate, f->own, f->own, f->n, 0, NULL, true, &f->at->pairs, f->counts, &f->clearing);
    activate_pairs(f, true);
}

static void decide_by_estimate(const struct fire *f)
{
    gpu_estimate_rows(&f->c->gpu, &f->s->gate_rows, f->x, f->n, f->at->of.gate, f->own);
    pick(f, 0, f->s->bound);
    activate_pairs(f, false);
}

/* What predictors read: x normed, or as it is. */
static const struct acts *predictor_reads(const struct fire *f, int layer, const struct input *in)
{
    struct acts *r = &f->at->of.residual;
    if (!device_reads_residual(&f->c->o))
        return f->x;
    r->f32 = in->residual;
    if (readers_of(&f->c->o, RESIDUAL, layer).q8)
        gpu_quantize(&f->c->gpu, r, f->n);
    return r;
}

/* hidden = relu(fc1 x), quantised if fc2 reads it so. */
static void compute_hidden(const struct fire *f, int layer, const struct input *in)
{
    const struct packed *fc1 = &f->s->fc1;
    struct acts *hidden = &f->at->of.hidden;
    hidden->cols = fc1->rows;
    const struct gpu_product p = {.m = *fc1, .y = hidden->f32, .y_stride = fc1->rows};
    gpu_matmul(&f->c->gpu, &p, 1, predictor_reads(f, layer, in), f->n);
    gpu_activate(&f->c->gpu, ACT_RELU, NULL, hidden->f32, fc1->rows, fc1->rows, f->n, NULL, hidden,
                 readers_of(&f->c->o, HIDDEN, layer).q8, &(struct gpu_clearing){0});
}

static void decide_by_mlp(const struct fire *f, int layer, const struct input *in)
{
    const struct gpu_product p = product_of(f, &f->s->fc2, NULL, f->at->of.gate);
    compute_hidden(f, layer, in);
    gpu_matmul(&f->c->gpu, &p, 1, &f->at->of.hidden, f->n);
    pick(f, nextafterf(f->s->fc2_threshold, -INFINITY), NULL); /* flagged: logit >= threshold */
    activate_pairs(f, false);
}

static void decide_by_product(const struct fire *f)
{
    const struct ffn_layer *s = f->s;
    const struct gpu *g = &f->c->gpu;
    gpu_estimate_rows(g, &s->gate_rows, f->x, f->n, f->at->of.gate, f->own);
    gpu_estimate_rows(g, &s->up_rows, f->x, f->n, f->at->of.up, f->own);
    gpu_estimate_products(g, f->c->hp->activation, f->at->of.gate, f->at->of.up, f->own, f->own, f->n, s->gate_slope,
                          s->gate_offset, s->up_slope, s->up_offset);
    pick(f, nextafterf(s->skip, -INFINITY), NULL);
    activate_pairs(f, true);
}

/* ---- counting ---- */

void cuda_fire_count(struct cuda *c, const struct ffn_layer *s, uint32_t n)
{
    const uint64_t pairs = (uint64_t)s->set.n * n;
    c->counts.bytes += ffn_layer_fixed_bytes(s);
    c->counts.neurons += pairs;
    if (s->down.set && !s->down.by_column)
        c->counts.bytes += packed_bytes(&s->down.matrix);
    if (s->decision == DECIDE_NOT) {
        c->counts.flagged += pairs;
        c->counts.live += pairs;
    }
}

/* ---- the whole ---- */

void cuda_fire_begin(struct cuda *c, struct firing *f, int64_t cols, uint32_t n)
{
    const size_t bytes = (size_t)(n * cols) * sizeof(float);
    f->of.activated.cols = cols;
    cuda_ok(c, cudaMemsetAsync(f->of.activated.f32, 0, bytes, c->gpu.stream), "cudaMemsetAsync");
}

/* What picking, or else the activation, clears: sums that begin, and activations of those that do not fire. */
static struct gpu_clearing clearing_of(const struct fire *f, const struct gpu_sums *begin)
{
    struct gpu_clearing c = {.h = f->at->of.activated.f32};
    if (f->s->decision != DECIDE_NOT)
        c.n_h = f->n * f->at->of.activated.cols;
    if (begin) {
        c.sums = *begin;
        c.n_broken = f->n;
        c.n_units = f->s->down.by_column ? f->n * f->c->hp->d_model : 0; /* a matrix gives all of them */
    }
    return c;
}

void cuda_fire(struct cuda *c, struct firing *at, int layer, const struct ffn_layer *s, struct gpu_counts *counts,
               const struct input *in, uint32_t n, const struct gpu_sums *begin)
{
    const struct neuron_set *set = &s->set;
    struct fire f = {.c = c, .at = at, .s = s, .x = &in->acts, .n = n, .own = set->n, .counts = counts,
                     .quantised = cuda_down_reads_codes(c, &s->down, layer)};
    const int64_t cols = down_slots(&s->down, set);
    at->of.activated.cols = cols;
    f.clearing = clearing_of(&f, begin);
    if (s->decision == DECIDE_NOT && (!set->whole || cols != set->n)) /* what is not held is zero */
        cuda_fire_begin(c, at, cols, n);
    switch (s->decision) {
    case DECIDE_NOT: fire_all(&f); break;
    case DECIDE_GATE: decide_by_gate(&f); break;
    case DECIDE_ESTIMATE: decide_by_estimate(&f); break;
    case DECIDE_MLP: decide_by_mlp(&f, layer, in); break;
    case DECIDE_PRODUCT: decide_by_product(&f); break;
    }
    if (f.quantised && s->decision != DECIDE_NOT)
        gpu_quantize(&c->gpu, &at->of.activated, n);
}
