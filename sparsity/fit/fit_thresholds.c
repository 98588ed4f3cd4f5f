/* What `threshold` needs of a layer: what estimates stand for, what neurons weigh, and the curve of what skipping
 * costs. */
#include <stdlib.h>
#include <string.h>

#include "sparsity/fit/fit_inside.h"
#include "sparsity/fit/planes.h"
#include "sparsity/fit/threshold.h"

enum { CURVE_PAIRS = 1 << 22 }; /* pairs of neuron and token */

/* Room for all pairs of a bundle's samples. */
struct curve_values {
    float *gate, *up, *activation, *estimate;
};

static status open_values(struct curve_values *v, int64_t n)
{
    *v = (struct curve_values){products_alloc(n, sizeof(float)), products_alloc(n, sizeof(float)),
                               products_alloc(n, sizeof(float)), products_alloc(n, sizeof(float))};
    return v->gate && v->up && v->activation && v->estimate ? ST_OK : ST_NOMEM;
}

static void close_values(struct curve_values *v)
{
    free(v->gate);
    free(v->up);
    free(v->activation);
    free(v->estimate);
}

/* estimate [n, width] becomes the value that each neuron's line, put into slope and offset [width], makes of it. */
static status straighten(const struct samples *s, int64_t width, const float *value, float *estimate, float *slope,
                         float *offset)
{
    const struct plane_samples p = {.n = s->x.n, .n_fit = s->choice.n_fit, .width = width, .value = value,
                                    .estimate = estimate};
    struct line *lines = products_alloc(width, sizeof *lines);
    status st = lines ? fit_lines(&p, lines) : ST_NOMEM;
    for (int64_t j = 0; j < width && !st; j++) {
        slope[j] = (float)lines[j].slope;
        offset[j] = (float)lines[j].offset;
    }
    for (int64_t t = 0; t < s->x.n && !st; t++, estimate += width)
        for (int64_t j = 0; j < width; j++)
            estimate[j] = slope[j] * estimate[j] + offset[j];
    free(lines);
    return st;
}

/* Activations, and in `estimate` what is thought of them. */
static status estimate_values(const struct fit *f, const struct samples *s, const struct bundle *b,
                              const struct curve_values *v)
{
    const struct kernels *k = f->o->kernels;
    float *lines = f->lines + b->first;
    const int64_t n = s->x.n * b->n;
    status st = products_exact(&s->x, &b->gate, v->gate);
    st = st ? st : products_exact(&s->x, &b->up, v->up);
    if (st)
        return st;
    k->activate(f->s->activation, v->gate, v->up, n, v->activation);
    st = products_estimate(&s->x, &b->gate, v->estimate);
    st = st ? st : straighten(s, b->n, v->gate, v->estimate, lines, lines + f->n);
    if (st)
        return st;
    memcpy(v->gate, v->estimate, (size_t)n * sizeof *v->gate);
    st = products_estimate(&s->x, &b->up, v->estimate);
    st = st ? st : straighten(s, b->n, v->up, v->estimate, lines + 2 * f->n, lines + 3 * f->n);
    if (!st)
        k->activate(f->s->activation, v->gate, v->estimate, n, v->estimate);
    return st;
}

/* Estimates of an expert that no sample has chosen count as they are. */
static void plain_lines(const struct fit *f, const struct bundle *b)
{
    for (int64_t j = b->first; j < b->first + b->n; j++) {
        f->lines[j] = f->lines[2 * f->n + j] = 1;
        f->lines[f->n + j] = f->lines[3 * f->n + j] = 0;
    }
}

static status score_bundle(const struct fit *f, int i, struct scored_rows *rows)
{
    const struct bundle *b = &f->w->bundles[i];
    struct samples s = {0};
    struct curve_values v = {0};
    status st = samples_open(&s, f->o->kernels, f->pool, f->s, i, CURVE_PAIRS);
    if (!st)
        st = open_values(&v, s.x.n * b->n);
    if (!st)
        st = fit_weights(b, f->d_model, f->weight + b->first);
    plain_lines(f, b);
    if (!st && s.x.n)
        st = estimate_values(f, &s, b, &v);
    for (int64_t t = 0; t < s.x.n && !st; t++)
        if (s.choice.stands[t])
            scored_add(rows, v.activation + t * b->n, v.estimate + t * b->n, f->weight + b->first, b->n,
                       s.choice.weight[t]);
    close_values(&v);
    samples_close(&s);
    return st;
}

static void take_lines(struct fit *f)
{
    struct neuron_layer *l = &f->fitted.layer;
    l->weight = f->weight;
    l->gate_slope = f->lines;
    l->gate_offset = f->lines + f->n;
    l->up_slope = f->lines + 2 * f->n;
    l->up_offset = f->lines + 3 * f->n;
}

status fit_thresholds(struct fit *f)
{
    const int64_t tokens = choice_standing(f->s, CURVE_PAIRS);
    const int64_t bundles = f->s->expert ? f->s->model->hp.n_experts_used + 1 : 1; /* that a token needs */
    struct scored_rows rows;
    status st = scored_open(&rows, choice_pairs(f->s, CURVE_PAIRS), tokens * bundles);
    if (!st && !(f->lines = products_alloc(4 * f->n, sizeof *f->lines)))
        st = ST_NOMEM;
    for (int i = 0; i < f->w->n_bundles && !st; i++)
        st = report(f->o, 0.9f * (float)i / (float)f->w->n_bundles) ? score_bundle(f, i, &rows) : ST_CANCELLED;
    if (!st)
        st = fit_curve(&rows, tokens, &f->fitted.curve);
    if (!st)
        take_lines(f);
    scored_close(&rows);
    return st;
}

