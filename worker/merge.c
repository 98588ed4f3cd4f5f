/* Adds the partial sums of a block to the residual stream. They are on a common grid (kernels.h, SEGMENT_GRID), so their
 * sum is exact: neither the order of the ranks nor where the plan cuts heads and neurons changes a bit. */
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
    for (int p = 0; p < m->n_parts; p++)
        sums_add(work->w, m->part[p], begin, end, m->own);
    for (int64_t i = begin * d; i < end * d; i++) {
        const float value = m->bias ? (float)m->own[i] + m->bias[i % d] : (float)m->own[i];
        m->to[i] = m->add ? m->to[i] + value : value;
    }
}

void merge_parts(struct worker *w, const struct merge *m, uint32_t n)
{
    struct merging work = {w, m};
    pool_for(w->pool, n, 4, merge_tokens, &work);
}
