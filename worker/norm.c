/* RMS norm of the residual stream in front of a block (Zhang and Sennrich, 2019). */
#include "worker/internal.h"

struct norm {
    struct worker *w;
    const float *weight; /* [d] */
    bool quantise;
};

static void norm_piece(void *arg, int64_t begin, int64_t end, int thread)
{
    struct norm *a = arg;
    struct stage *s = &a->w->stage;
    const struct hparams *hp = &a->w->o.model->hp;
    (void)thread;
    for (int64_t t = begin; t < end; t++)
        a->w->o.kernels->rms_norm(s->x + t * hp->d_model, a->weight, hp->d_model, hp->norm_eps,
                                  s->in.f32 + t * hp->d_model);
    if (a->quantise)
        a->w->o.kernels->quantize(&s->in, begin, end);
}

void norm_tokens(struct worker *w, const float *weight, uint32_t n, bool quantise)
{
    struct norm a = {w, weight, quantise};
    pool_for(w->pool, n, 4, norm_piece, &a);
}
