/* Adds the partial sums of a block to the residual stream. They are f64 on a common grid (kernels.h, SEGMENT_GRID), so
 * their sum is exact: neither the order of the ranks nor where the plan cuts heads and neurons changes a bit. */
#include "worker/internal.h"

struct merging {
    struct worker *w;
    const struct merge *m;
};

static void merge_tokens(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct merging *work = arg;
    const struct merge *m = work->m;
    const int64_t d = work->w->o.model->hp.d_model;
    (void)thread;
    for (int64_t t = begin; t < end; t++) {
        for (int64_t i = 0; i < d; i++) {
            double sum = m->part[0][t * d + i];
            for (int p = 1; p < m->n_parts; p++)
                sum += m->part[p][t * d + i];
            const float value = m->bias ? (float)sum + m->bias[i] : (float)sum;
            m->to[t * d + i] = m->add ? m->to[t * d + i] + value : value;
        }
    }
}

void merge_parts(struct worker *w, const struct merge *m, uint32_t n)
{
    struct merging work = {w, m};
    pool_for(w->pool, n, 4, merge_tokens, &work);
}
