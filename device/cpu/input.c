#include "device/cpu/input.h"

#include <string.h>

#include "device/readers.h"

void input_lay(struct cpu *c, struct input *in)
{
    lay_acts(&c->arena, &in->laid, c->o.n_batch, c->hp->d_model);
    in->acts = in->laid;
    if (!c->hp->n_experts)
        return;
    in->routes.expert = lay_words(&c->arena, c->o.n_batch * c->hp->n_experts_used);
    in->routes.weight = lay_floats(&c->arena, c->o.n_batch * model_route_weights(c->hp));
}

/* A few words for each token: copied. */
static void copy_routes(const struct cpu *c, uint32_t n, const struct routes *from, const struct routes *to)
{
    memcpy(to->expert, from->expert, n * (size_t)c->hp->n_experts_used * sizeof *to->expert);
    memcpy(to->weight, from->weight, n * (size_t)model_route_weights(c->hp) * sizeof *to->weight);
}

/* int8 blocks are four times smaller than floats and change no bit. */
void input_export(struct cpu *c, const struct work *w, const struct input *in, const struct input_bytes *to)
{
    const size_t values = (size_t)w->n * (size_t)c->hp->d_model;
    if (to->f32) {
        memcpy(to->f32, in->acts.f32, values * sizeof *to->f32);
    } else {
        memcpy(to->codes, in->acts.codes, values);
        for (size_t i = 0; i < values / ACT_BLOCK; i++)
            to->scale[i] = in->acts.blocks[i].scale;
    }
    if (to->expert)
        copy_routes(c, w->n, &in->routes, &(struct routes){to->expert, to->weight});
    if (to->residual)
        memcpy(to->residual, in->residual, values * sizeof *to->residual);
}

void input_import(struct cpu *c, const struct work *w, const struct input_bytes *from, struct input *in)
{
    in->acts = in->laid;
    in->residual = from->residual;
    if (from->expert)
        copy_routes(c, w->n, &(struct routes){from->expert, from->weight}, &in->routes);
    if (from->f32) {
        in->acts.f32 = from->f32;
        if (readers_of(&c->o, x_of(w->part), w->layer).q8)
            c->o.kernels->quantize(&in->acts, 0, w->n);
        return;
    }
    in->acts.codes = from->codes;
    for (int64_t i = 0; i < w->n * c->hp->d_model / ACT_BLOCK; i++)
        in->acts.blocks[i].scale = from->scale[i];
    c->o.kernels->sum_blocks(&in->acts, 0, w->n);
}
