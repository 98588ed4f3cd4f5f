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
    for (int64_t j = 0; j < s->width; j++)
        m[j] = (struct moments){0};
    for (int64_t t = 0, i = 0; t < s->n_fit; t++) {
        for (int64_t j = 0; j < s->width; j++, i++) {
            m[j].e += (double)s->estimate[i] / n;
            m[j].v += (double)s->value[i] / n;
        }
    }
    for (int64_t t = 0, i = 0; t < s->n_fit; t++) {
        for (int64_t j = 0; j < s->width; j++, i++) {
            const double e = (double)s->estimate[i] - m[j].e, v = (double)s->value[i] - m[j].v;
            m[j].ee += e * e;
            m[j].ev += e * v;
            m[j].vv += v * v;
        }
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

status fit_lines(const struct plane_samples *s, struct line *lines)
{
    const bool enough = s->n_fit >= FIT_MIN_CHOSEN;
    struct moments *m = enough ? products_alloc(s->width, sizeof *m) : NULL;
    if (enough && !m)
        return ST_NOMEM;
    if (enough)
        take_moments(s, m);
    for (int64_t j = 0; j < s->width; j++)
        lines[j] = enough ? fit_line(&m[j], (double)s->n_fit, s->bias ? (double)s->bias[j] : 0)
                          : (struct line){.slope = 1};
    free(m);
    return ST_OK;
}

int64_t plane_margins(const struct plane_samples *s, const struct line *lines, float *margin, bool *live)
{
    int64_t rows = 0;
    for (int64_t i = s->n_fit; i < s->n; i++) {
        const float *estimate = s->estimate + i * s->width;
        if (!s->stands[i])
            continue;
        for (int64_t j = 0; j < s->width; j++) {
            const struct line *l = &lines[j];
            *margin++ = l->spread > 0 ? (float)((l->slope * (double)estimate[j] + l->offset) / l->spread) : INFINITY;
            *live++ = s->live[i * s->width + j];
        }
        rows++;
    }
    return rows;
}

void plane_bounds(const struct line *lines, int64_t n, float limit, float *bound)
{
    const double below = (double)nextafterf(limit, -INFINITY);
    for (int64_t j = 0; j < n; j++)
        bound[j] = lines[j].spread > 0 ? (float)((below * lines[j].spread - lines[j].offset) / lines[j].slope)
                                       : -INFINITY;
}
