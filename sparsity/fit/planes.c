#include "sparsity/fit/planes.h"

#include <math.h>
#include <stdlib.h>

/* Sums over the fitting samples of a neuron's estimates and values, then of their products about the means. */
struct moments {
    double e, v, ee, ev, vv;
};

static void take_moments(const struct plane_samples *s, struct moments *m)
{
    const double n = (double)s->n_fit;
    for (int64_t j = 0; j < s->d_ff; j++)
        m[j] = (struct moments){0};
    for (int64_t i = 0; i < s->n_fit * s->d_ff; i++) {
        struct moments *of = &m[i % s->d_ff];
        of->e += (double)s->estimate[i] / n;
        of->v += (double)s->value[i] / n;
    }
    for (int64_t i = 0; i < s->n_fit * s->d_ff; i++) {
        struct moments *of = &m[i % s->d_ff];
        const double e = (double)s->estimate[i] - of->e, v = (double)s->value[i] - of->v;
        of->ee += e * e;
        of->ev += e * v;
        of->vv += v * v;
    }
}

static struct line fit_line(const struct moments *m, double n, double bias)
{
    const double flattest = 0.125; /* a bound is a lower bound of the estimate: the line must rise */
    struct line l = {.slope = m->ee > 0 ? fmax(m->ev / m->ee, flattest) : 1};
    l.offset = m->v - l.slope * m->e + bias;
    l.spread = sqrt(fmax(m->vv - 2 * l.slope * m->ev + l.slope * l.slope * m->ee, 0) / n) + 1e-9;
    return l;
}

struct line *fit_lines(const struct plane_samples *s)
{
    struct moments *m = products_alloc(s->d_ff, sizeof *m);
    struct line *lines = m ? products_alloc(s->d_ff, sizeof *lines) : NULL;
    if (lines) {
        take_moments(s, m);
        for (int64_t j = 0; j < s->d_ff; j++)
            lines[j] = fit_line(&m[j], (double)s->n_fit, s->bias ? (double)s->bias[j] : 0);
    }
    free(m);
    return lines;
}

status fit_planes(const struct plane_samples *s, const struct fit_options *o, float *bound,
                  struct predictor_quality *quality)
{
    const int64_t first = s->n_fit * s->d_ff;
    struct line *lines = fit_lines(s);
    if (!lines)
        return ST_NOMEM;
    for (int64_t i = first; i < s->n * s->d_ff; i++) { /* how many spreads above zero the value is thought to be */
        const struct line *l = &lines[i % s->d_ff];
        s->estimate[i] = (float)((l->slope * (double)s->estimate[i] + l->offset) / l->spread);
    }
    const struct margins m = {.n = s->n - s->n_fit, .d_ff = s->d_ff, .margin = s->estimate + first,
                              .live = s->live + first};
    float limit;
    status st = fit_limit(&m, o, &limit, quality);
    for (int64_t j = 0; !st && j < s->d_ff; j++)
        bound[j] = (float)(((double)nextafterf(limit, -INFINITY) * lines[j].spread - lines[j].offset) / lines[j].slope);
    free(lines);
    return st;
}
