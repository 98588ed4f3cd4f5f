/* Adds the partial sums of an FFN to the residual stream. They are f64 on a common grid (kernels.h, SEGMENT_GRID), so
 * their sum is exact: neither the order of the ranks nor where the plan cuts the neurons changes a bit. */
#include "worker/internal.h"

struct merge {
    struct worker *w;
    const double *part[PLAN_MAX_RANKS]; /* [n, d] of each owner */
    int n_parts;
    const float *bias;                  /* [d] or NULL */
};

static void merge_tokens(void *arg, int64_t begin, int64_t end, int thread)
{
    struct merge *m = arg;
    const int64_t d = m->w->o.model->hp.d_model;
    (void)thread;
    for (int64_t i = begin * d; i < end * d; i++) {
        double sum = m->part[0][i];
        for (int p = 1; p < m->n_parts; p++)
            sum += m->part[p][i];
        m->w->stage.x[i] += m->bias ? (float)sum + m->bias[i % d] : (float)sum;
    }
}

void merge_partials(struct worker *w, int layer, uint32_t n)
{
    const struct stage *s = &w->stage;
    const bool elsewhere = !plan_down_at_stage(w->o.plan, layer); /* down projections of others */
    struct merge m = {.w = w, .part = {s->own}, .n_parts = 1, .bias = s->down_bias[layer - s->first]};
    for (int r = 0; r < w->n_ranks; r++)
        if (elsewhere && r != w->rank && owner_of(w, layer, r))
            m.part[m.n_parts++] = s->partials[r].sum;
    pool_for(w->pool, n, 4, merge_tokens, &m);
}
