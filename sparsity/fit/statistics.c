#include "sparsity/fit/statistics.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Copies n_out of the n rows x evenly spread. */
static void pick_rows(const float *x, int64_t n, int64_t n_out, int64_t cols, float *out)
{
    for (int64_t i = 0; i < n_out; i++)
        memcpy(out + i * cols, x + i * n / n_out * cols, (size_t)cols * sizeof *out);
}

status samples_open(struct samples *s, const struct kernels *k, struct pool *pool, const float *x, int64_t n,
                    int64_t n_fit, int64_t n_most, int64_t cols)
{
    const int64_t n_taken = n < n_most ? n : n_most;
    s->n_fit = n_fit * n_taken / n;
    status st = products_open(&s->x, k, pool, n_taken, cols);
    if (st)
        return st;
    pick_rows(x, n_fit, s->n_fit, cols, s->x.acts.f32);
    pick_rows(x + n_fit * cols, n - n_fit, n_taken - s->n_fit, cols, s->x.acts.f32 + s->n_fit * cols);
    products_quantize(&s->x);
    return ST_OK;
}

void samples_close(struct samples *s)
{
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
        .accuracy = (float)(1 - (c->live + c->flagged - 2 * c->hit) / c->n),
        .flagged = (float)(c->flagged / c->n),
    };
}

/* Also the standard error of the missed share: misses of one token go together, tokens are independent. */
static struct predictor_quality quality_at(const struct margins *m, float limit, float *error)
{
    struct pair_counts all = {.n = (double)(m->n * m->d_ff)};
    double missed2 = 0, missed_live = 0, live2 = 0;
    for (int64_t t = 0; t < m->n; t++) {
        int64_t live = 0, flagged = 0, hit = 0;
        for (int64_t i = t * m->d_ff; i < (t + 1) * m->d_ff; i++) {
            const bool flag = m->margin[i] >= limit;
            live += m->live[i];
            flagged += flag;
            hit += flag && m->live[i];
        }
        const double missed = (double)(live - hit), of = (double)live;
        all.live += of;
        all.flagged += (double)flagged;
        all.hit += (double)hit;
        missed2 += missed * missed;
        missed_live += missed * of;
        live2 += of * of;
    }
    const double miss = all.live > 0 ? 1 - all.hit / all.live : 0;
    const double squares = missed2 - 2 * miss * missed_live + miss * miss * live2;
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
    for (int64_t i = 0; i < m->n * m->d_ff; i++)
        n += m->live[i];
    float *sorted = products_alloc(n, sizeof *sorted);
    *n_live = n;
    n = 0;
    for (int64_t i = 0; sorted && i < m->n * m->d_ff; i++)
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
