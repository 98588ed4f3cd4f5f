/* Bounds for the top bits of what decides: estimates of all bundles beside what their neurons are, one limit for the
 * layer. */
#include <stdlib.h>

#include "sparsity/fit/fit_inside.h"
#include "sparsity/fit/planes.h"

enum { PLANE_PAIRS = 1 << 24 }; /* pairs of neuron and token: so many say enough, and fit into memory */

/* What is measured of a layer's bundles, one after the other. */
struct measuring {
    struct line *lines;        /* [n] */
    float *margin;             /* pairs so far of `most` */
    bool *live;
    struct margin_rows *parts; /* [n_parts] */
    int64_t pairs;
    int n_parts;
};

static status open_measuring(const struct fit *f, struct measuring *m)
{
    const int64_t most = choice_pairs(f->s, PLANE_PAIRS);
    *m = (struct measuring){.lines = products_alloc(f->n, sizeof *m->lines),
                            .margin = products_alloc(most, sizeof *m->margin),
                            .live = products_alloc(most, sizeof *m->live),
                            .parts = products_alloc(f->w->n_bundles, sizeof *m->parts)};
    return m->lines && m->margin && m->live && m->parts ? ST_OK : ST_NOMEM;
}

static void close_measuring(struct measuring *m)
{
    free(m->lines);
    free(m->margin);
    free(m->live);
    free(m->parts);
}

/* value, estimate, live: room for all pairs of the samples. */
static status measure_products(const struct fit *f, const struct samples *s, const struct bundle *b, float *value,
                               float *estimate, bool *live)
{
    const bool both = f->s->activation == ACT_DRELU;
    status st = products_exact(&s->x, deciding(b), value);
    if (!st && both)
        st = products_exact(&s->x, &b->up, estimate);
    if (st)
        return st;
    products_live(value, b->gate.data ? NULL : f->bias, both ? estimate : NULL, s->x.n, b->n, live);
    return products_estimate(&s->x, deciding(b), estimate);
}

static status measure_bundle(const struct fit *f, int i, struct measuring *m)
{
    const struct bundle *b = &f->w->bundles[i];
    struct samples s = {0};
    float *value = NULL, *estimate = NULL;
    bool *live = NULL;
    status st = samples_open(&s, f->o->kernels, f->pool, f->s, i, PLANE_PAIRS);
    const int64_t n = s.choice.n * b->n;
    if (!st && (!(value = products_alloc(n, sizeof *value)) || !(estimate = products_alloc(n, sizeof *estimate)) ||
                !(live = products_alloc(n, sizeof *live))))
        st = ST_NOMEM;
    if (!st && n)
        st = measure_products(f, &s, b, value, estimate, live);
    const struct plane_samples p = {.n = s.choice.n, .n_fit = s.choice.n_fit, .width = b->n, .value = value,
                                    .estimate = estimate, .bias = b->gate.data ? NULL : f->bias, .live = live,
                                    .stands = s.choice.stands};
    if (!st)
        st = fit_lines(&p, m->lines + b->first);
    if (!st) {
        const int64_t rows = plane_margins(&p, m->lines + b->first, m->margin + m->pairs, m->live + m->pairs);
        m->parts[m->n_parts++] = (struct margin_rows){rows, b->n};
        m->pairs += rows * b->n;
    }
    free(value);
    free(estimate);
    free(live);
    samples_close(&s);
    return st;
}

status fit_bounds(struct fit *f)
{
    struct measuring m;
    float limit = 0;
    status st = open_measuring(f, &m);
    for (int i = 0; i < f->w->n_bundles && !st; i++)
        st = report(f->o, 0.9f * (float)i / (float)f->w->n_bundles) ? measure_bundle(f, i, &m) : ST_CANCELLED;
    const struct margins margins = {.parts = m.parts, .n_parts = m.n_parts, .n = m.pairs, .margin = m.margin,
                                    .live = m.live};
    if (!st)
        st = fit_limit(&margins, f->o, &limit, &f->fitted.layer.planes);
    if (!st) {
        plane_bounds(m.lines, f->n, limit, f->bound);
        f->fitted.layer.bound = f->bound;
    }
    close_measuring(&m);
    return st;
}

