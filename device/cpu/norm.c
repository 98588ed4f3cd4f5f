#include "device/cpu/norm.h"

#include <string.h>

#include "device/numbers.h"
#include "device/readers.h"

struct norm_weights norm_lay(struct cpu *c, const struct matrix *weight, const struct matrix *bias)
{
    float *of = lay_vector(&c->arena, weight);
    return (struct norm_weights){of, lay_vector(&c->arena, bias)};
}

void norm_load(struct loading *l, struct norm_weights to, const struct matrix *weight, const struct matrix *bias)
{
    load_vector(l, to.weight, weight);
    load_vector(l, to.bias, bias);
}

struct norm {
    const struct cpu *c;
    struct norm_weights weights;
    const float *x;
    const uint32_t *tokens; /* NULL: all */
    struct acts *out;
    bool quantise;
    _Atomic bool broken;    /* what came out is not all numbers */
};

static void norm_vector(const struct norm *a, const float *x, float *out)
{
    const struct hparams *hp = a->c->hp;
    if (!a->weights.weight)
        memcpy(out, x, (size_t)hp->d_model * sizeof *out);
    else if (hp->norm == NORM_LAYER)
        a->c->o.kernels->layer_norm(x, a->weights.weight, a->weights.bias, hp->d_model, hp->norm_eps, out);
    else
        a->c->o.kernels->rms_norm(x, a->weights.weight, hp->d_model, hp->norm_eps, out);
}

static void norm_piece(void *arg, int64_t begin, int64_t end, int thread)
{
    struct norm *a = arg;
    const int64_t d = a->c->hp->d_model;
    (void)thread;
    for (int64_t t = begin; t < end; t++)
        norm_vector(a, a->x + (a->tokens ? a->tokens[t] : t) * d, a->out->f32 + t * d);
    if (!all_numbers(a->out->f32 + begin * d, (end - begin) * d))
        a->broken = true;
    if (a->quantise)
        a->c->o.kernels->quantize(a->out, begin, end);
}

bool norm_tokens(struct cpu *c, struct norm_weights weights, const float *x, const struct work *w, struct acts *out)
{
    struct norm a = {.c = c, .weights = weights, .x = x, .tokens = w->tokens, .out = out,
                     .quantise = readers_of(&c->o, x_of(w->part), w->layer).q8};
    pool_for(c->o.pool, w->n, 4, norm_piece, &a);
    return !a.broken;
}
