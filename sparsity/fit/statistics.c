#include "sparsity/fit/statistics.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

status samples_open(struct samples *s, const struct kernels *k, struct pool *pool, const struct layer_sample *of,
                    int bundle, int64_t n_pairs)
{
    const int64_t d = of->model->hp.d_model;
    status st = choice_make(of, bundle, n_pairs, &s->choice);
    if (!st)
        st = products_open(&s->x, k, pool, s->choice.n, d);
    if (st)
        return st;
    for (int64_t i = 0; i < s->choice.n; i++)
        memcpy(s->x.acts.f32 + i * d, of->x + s->choice.token[i] * d, (size_t)d * sizeof *of->x);
    products_quantize(&s->x);
    return ST_OK;
}

void samples_close(struct samples *s)
{
    choice_free(&s->choice);
    products_close(&s->x);
}

/* ---- limits ---- */

/* Pairs of a neuron and a token, counted. */
struct pair_counts {
    double n, live, flagged, hit; /* hit: live and flagged */
};

static struct predictor_quality quality_of(const struct pair_counts *c)
{
    return (struct predictor_quality){
        .recall = c->live > 0 ? (float)(c->hit / c->live) : 1,
        .precision = c->flagged > 0 ? (float)(c->hit / c->flagged) : 1,
        .accuracy = c->n > 0 ? (float)(1 - (c->live + c->flagged - 2 * c->hit) / c->n) : 1,
        .flagged = c->n > 0 ? (float)(c->flagged / c->n) : 0,
    };
}

/* What the standard error of the missed share is made of: sums over rows. */
struct misses {
    double missed2, missed_live, live2;
};

static void add_row(const struct margins *m, int64_t first, int64_t n, float limit, struct pair_counts *all,
                    struct misses *sums)
{
    int64_t live = 0, flagged = 0, hit = 0;
    for (int64_t i = first; i < first + n; i++) {
        const bool flag = m->margin[i] >= limit;
        live += m->live[i];
        flagged += flag;
        hit += flag && m->live[i];
    }
    const double missed = (double)(live - hit), of = (double)live;
    all->live += of;
    all->flagged += (double)flagged;
    all->hit += (double)hit;
    sums->missed2 += missed * missed;
    sums->missed_live += missed * of;
    sums->live2 += of * of;
}

/* Also the standard error of the missed share: misses of one row go together, rows are independent. */
static struct predictor_quality quality_at(const struct margins *m, float limit, float *error)
{
    struct pair_counts all = {.n = (double)m->n};
    struct misses sums = {0};
    int64_t first = 0;
    for (const struct margin_rows *part = m->parts; part < m->parts + m->n_parts; part++)
        for (int64_t i = 0; i < part->n; i++, first += part->width)
            add_row(m, first, part->width, limit, &all, &sums);
    const double miss = all.live > 0 ? 1 - all.hit / all.live : 0;
    const double squares = sums.missed2 - 2 * miss * sums.missed_live + miss * miss * sums.live2;
    *error = all.live > 0 ? (float)(sqrt(fmax(squares, 0)) / all.live) : 0;
    return quality_of(&all);
}

static int compare(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* The margins of the live pairs in ascending order; NULL if out of memory (logged). */
static float *live_margins(const struct margins *m, int64_t *n_live)
{
    int64_t n = 0;
    for (int64_t i = 0; i < m->n; i++)
        n += m->live[i];
    float *sorted = products_alloc(n, sizeof *sorted);
    *n_live = n;
    n = 0;
    for (int64_t i = 0; sorted && i < m->n; i++)
        if (m->live[i])
            sorted[n++] = m->margin[i];
    if (sorted)
        qsort(sorted, (size_t)n, sizeof *sorted, compare);
    return sorted;
}

status fit_limit(const struct margins *m, const struct fit_options *o, float *limit,
                 struct predictor_quality *quality)
{
    const float step = 0.005f, most = fmaxf(1 - o->recall, o->miss);
    struct predictor_quality q;
    int64_t n_live;
    float at, error, *sorted = live_margins(m, &n_live);
    if (!sorted)
        return ST_NOMEM;
    for (float miss = o->miss;; miss = fminf(miss + step, most)) {
        at = n_live ? sorted[(int64_t)(miss * (float)(n_live - 1))] : INFINITY;
        quality_at(m, at, &error);
        at = n_live ? sorted[(int64_t)(fmaxf(miss - error, miss / 2) * (float)(n_live - 1))] : INFINITY;
        q = quality_at(m, at, &error);
        if (q.accuracy >= o->accuracy || miss >= most)
            break;
    }
    free(sorted);
    *limit = at;
    *quality = q;
    return ST_OK;
}
