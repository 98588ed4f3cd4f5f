/* The norm of the residual stream in front of a block: RMS norm (Zhang and Sennrich, 2019) or layer norm (Ba et al.,
 * 2016). */
#include "worker/internal.h"

struct norm {
    struct worker *w;
    struct norm_weights weights;
    bool quantise;
};

void norm_vector(const struct worker *w, struct norm_weights norm, const float *x, float *out)
{
    const struct hparams *hp = &w->o.model->hp;
    if (hp->norm == NORM_LAYER)
        w->o.kernels->layer_norm(x, norm.weight, norm.bias, hp->d_model, hp->norm_eps, out);
    else
        w->o.kernels->rms_norm(x, norm.weight, hp->d_model, hp->norm_eps, out);
}

static void norm_piece(void *arg, int64_t begin, int64_t end, int thread)
{
    struct norm *a = arg;
    struct stage *s = &a->w->stage;
    const int64_t d = a->w->o.model->hp.d_model;
    (void)thread;
    for (int64_t t = begin; t < end; t++)
        norm_vector(a->w, a->weights, s->x + t * d, s->in.f32 + t * d);
    if (a->quantise)
        a->w->o.kernels->quantize(&s->in, begin, end);
}

void norm_tokens(struct worker *w, struct norm_weights norm, uint32_t n, bool quantise)
{
    struct norm a = {w, norm, quantise};
    pool_for(w->pool, n, 4, norm_piece, &a);
}
