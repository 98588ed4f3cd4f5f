/* The partial sums of an FFN, added in rank order, so that a run repeats exactly. */
#include "worker/internal.h"

struct merge {
    struct worker *w;
    int layer;
    float *own;
};

static void merge_tokens(void *arg, int64_t begin, int64_t end, int thread)
{
    struct merge *m = arg;
    const struct worker *w = m->w;
    const int64_t *bound = w->o.plan->layers[m->layer].bound;
    const int64_t d = w->o.model->hp.d_model, at = begin * d, n = (end - begin) * d;
    float *sum = NULL;
    (void)thread;
    for (int r = 0; r < w->n_ranks; r++) {
        if (bound[r] == bound[r + 1])
            continue;
        float *part = r == w->rank ? m->own : (float *)(w->stage.partials[r] + WIRE_HEADER);
        if (!sum)
            sum = part + at; /* the first part collects the others */
        else
            w->o.kernels->add(sum, part + at, n);
    }
    w->o.kernels->add(w->stage.x + at, sum, n);
}

void merge_partials(struct worker *w, int layer, uint32_t n, float *own)
{
    struct merge m = {.w = w, .layer = layer, .own = own};
    pool_for(w->pool, n, 4, merge_tokens, &m);
}
