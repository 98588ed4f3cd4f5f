#include "device/cpu/single.h"

#include <math.h>

/* ---- pairs ---- */

/* value[t * stride + i] decides about own neuron begin + i: those above `bound` (or bound_of[i], where it is not NULL)
 * become pairs, and so does what is no number: its neuron is computed, and the block's end shows it. A neuron's pairs
 * follow each other. Returns how many. */
static int64_t pick_pairs(const struct piece *p, const float *value, int64_t stride, float bound, const float *bound_of)
{
    int32_t *row = p->live->row, *token = p->live->token;
    int64_t found = 0;
    for (int64_t i = 0; i < p->end - p->begin; i++) {
        const float limit = bound_of ? bound_of[i] : bound;
        for (uint32_t t = 0; t < p->of->n; t++) {
            row[found] = (int32_t)(p->begin + i);
            token[found] = (int32_t)t;
            found += !(value[t * stride + i] <= limit);
        }
    }
    return found;
}

/* Keeps the pairs whose gate is positive, or no number; gate[i] stays beside its pair. */
static int64_t keep_positive(struct live_scratch *l, int64_t n_pairs)
{
    int64_t kept = 0;
    for (int64_t i = 0; i < n_pairs; i++) {
        l->row[kept] = l->row[i];
        l->token[kept] = l->token[i];
        l->gate[kept] = l->gate[i];
        kept += !(l->gate[i] <= 0);
    }
    return kept;
}

/* How many different neurons the pairs have: each one's row is read once. */
static int64_t count_rows(const struct live_scratch *l, int64_t n_pairs)
{
    int64_t rows = n_pairs > 0;
    for (int64_t i = 1; i < n_pairs; i++)
        rows += l->row[i] != l->row[i - 1];
    return rows;
}

/* Bytes that the pairs' rows take; of rows that were estimated, the top part has been read. */
static uint64_t row_bytes(const struct neuron_rows *m, const struct live_scratch *l, int64_t n_pairs)
{
    return (uint64_t)count_rows(l, n_pairs) * (m->planes ? m->rest_bytes : m->top_bytes);
}

/* ---- the steps of a piece ---- */

static void add_bias(const float *bias, const struct live_scratch *l, int64_t n_pairs, float *value)
{
    for (int64_t i = 0; bias && i < n_pairs; i++)
        value[i] += bias[l->row[i]];
}

/* The gates of the pairs, from their rows. */
static void compute_gates(const struct piece *p, int64_t n_pairs)
{
    const struct ffn_layer *s = p->of->s;
    struct live_scratch *l = p->live;
    p->c->o.kernels->dot_rows(&s->gate_rows, &p->of->lanes, l->row, l->token, n_pairs, l->gate);
    add_bias(s->bias, l, n_pairs, l->gate);
    l->counts.flagged += (uint64_t)n_pairs;
    l->counts.bytes += row_bytes(&s->gate_rows, l, n_pairs);
}

/* Up of the pairs, and their activations into the slots. */
static void activate_pairs(const struct piece *p, int64_t n_pairs)
{
    const struct share *of = p->of;
    const struct ffn_layer *s = of->s;
    const struct kernels *k = p->c->o.kernels;
    struct live_scratch *l = p->live;
    if (s->has_gate) {
        k->dot_rows(&s->up_rows, &of->lanes, l->row, l->token, n_pairs, l->up);
        add_bias(s->up_bias, l, n_pairs, l->up);
        l->counts.bytes += row_bytes(&s->up_rows, l, n_pairs);
    }
    k->activate(p->c->hp->activation, s->has_gate ? l->gate : NULL, s->has_gate ? l->up : l->gate, n_pairs, l->gate);
    for (int64_t i = 0; i < n_pairs; i++)
        of->h.f32[l->token[i] * of->h.cols + s->set.slot[l->row[i]]] =
            of->weight ? l->gate[i] * of->weight[l->token[i]] : l->gate[i];
    l->counts.live += (uint64_t)n_pairs;
    p->of->fired += (uint64_t)n_pairs;
}

void piece_multiply(const struct piece *p, const struct packed *m, const struct acts *x, float *y)
{
    const int64_t groups_end = (p->end + ROW_GROUP - 1) / ROW_GROUP;
    p->c->o.kernels->matmul(m, p->begin / ROW_GROUP, groups_end, x, p->of->n, y, p->of->s->set.n);
}

void piece_add_bias(const struct piece *p, const float *bias, float *y)
{
    for (uint32_t t = 0; bias && t < p->of->n; t++)
        p->c->o.kernels->add(y + t * p->of->s->set.n + p->begin, bias + p->begin, p->end - p->begin);
}

/* ---- decisions ---- */

static int64_t decide_by_gate(const struct piece *p)
{
    const struct ffn_layer *s = p->of->s;
    float *gate = p->of->gate;
    piece_multiply(p, &s->gate, &p->of->x, gate);
    piece_add_bias(p, s->bias, gate);
    const int64_t n_pairs = pick_pairs(p, gate + p->begin, s->set.n, 0, NULL);
    for (int64_t i = 0; i < n_pairs; i++)
        p->live->gate[i] = gate[p->live->token[i] * s->set.n + p->live->row[i]];
    p->live->counts.flagged += (uint64_t)n_pairs;
    return n_pairs;
}

static int64_t decide_by_estimate(const struct piece *p)
{
    const struct ffn_layer *s = p->of->s;
    float *gate = p->of->gate + p->begin;
    p->c->o.kernels->estimate_rows(&s->gate_rows, p->begin, p->end, &p->of->lanes, p->of->n, gate, s->set.n);
    const int64_t n_pairs = pick_pairs(p, gate, s->set.n, 0, s->bound + p->begin);
    compute_gates(p, n_pairs);
    return keep_positive(p->live, n_pairs);
}

static int64_t decide_by_mlp(const struct piece *p)
{
    const struct ffn_layer *s = p->of->s;
    const float below = nextafterf(s->fc2_threshold, -INFINITY); /* flagged: logit >= threshold */
    piece_multiply(p, &s->fc2, p->hidden, p->of->gate);
    const int64_t n_pairs = pick_pairs(p, p->of->gate + p->begin, s->set.n, below, NULL);
    compute_gates(p, n_pairs);
    return keep_positive(p->live, n_pairs);
}

/* product[i] = how large token t's activation of the piece's neuron i is estimated, from its gate's estimate there and
 * up's. */
static void estimate_activations(const struct piece *p, uint32_t t, float *product, float *up)
{
    const struct ffn_layer *s = p->of->s;
    const float weight = p->of->weight ? p->of->weight[t] : 1;
    const int64_t rows = p->end - p->begin;
    for (int64_t i = 0, j = p->begin; i < rows; i++, j++) {
        product[i] = product[i] * s->gate_slope[j] + s->gate_offset[j];
        up[i] = up[i] * s->up_slope[j] + s->up_offset[j];
    }
    p->c->o.kernels->activate(p->c->hp->activation, product, up, rows, product);
    for (int64_t i = 0; i < rows; i++)
        product[i] = fabsf(product[i] * weight);
}

static int64_t decide_by_product(const struct piece *p)
{
    const struct ffn_layer *s = p->of->s;
    const struct kernels *k = p->c->o.kernels;
    const int64_t own = s->set.n;
    float *gate = p->of->gate + p->begin, *up = p->of->up + p->begin;
    k->estimate_rows(&s->gate_rows, p->begin, p->end, &p->of->lanes, p->of->n, gate, own);
    k->estimate_rows(&s->up_rows, p->begin, p->end, &p->of->lanes, p->of->n, up, own);
    for (uint32_t t = 0; t < p->of->n; t++)
        estimate_activations(p, t, gate + t * own, up + t * own);
    const int64_t n_pairs = pick_pairs(p, gate, own, nextafterf(s->skip, -INFINITY), NULL);
    compute_gates(p, n_pairs);
    return n_pairs;
}

void piece_fire_single(const struct piece *p)
{
    int64_t n_pairs;
    switch (p->of->s->decision) {
    case DECIDE_GATE: n_pairs = decide_by_gate(p); break;
    case DECIDE_ESTIMATE: n_pairs = decide_by_estimate(p); break;
    case DECIDE_MLP: n_pairs = decide_by_mlp(p); break;
    default: n_pairs = decide_by_product(p); break;
    }
    activate_pairs(p, n_pairs);
}
