/* The norm of the residual stream in front of a block: RMS norm (Zhang and Sennrich, 2019) or layer norm (Ba et al.,
 * 2016). */
#include "worker/internal.h"

struct norm {
    struct worker *w;
    struct norm_weights weights;
    const float *x;
    bool quantise;
    _Atomic bool broken; /* what came out is not all numbers */
};

static void norm_vector(const struct worker *w, struct norm_weights norm, const float *x, float *out)
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
        norm_vector(a->w, a->weights, a->x + t * d, s->in.f32 + t * d);
    if (!all_numbers(s->in.f32 + begin * d, (end - begin) * d))
        a->broken = true;
    if (a->quantise)
        a->w->o.kernels->quantize(&s->in, begin, end);
}

status norm_tokens(struct worker *w, struct norm_weights norm, const float *x, const struct task *t)
{
    static const char *const before[WIRE_PARTS] = {"the norm before attention", "the norm before the FFN",
                                                   "the norm before the output matrix"};
    struct norm a = {.w = w, .weights = norm, .x = x, .quantise = readers_of(w, x_of(t->part), t->layer).q8};
    pool_for(w->pool, t->n, 4, norm_piece, &a);
    return a.broken ? not_numbers(w, t, before[t->part], w->stage.in.f32, w->o.model->hp.d_model) : ST_OK;
}
