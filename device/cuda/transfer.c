#include "device/cuda/transfer.h"

#include <math.h>
#include <string.h>

#include "device/cuda/router.h"
#include "device/readers.h"
#include "kernels/cuda/stream.h"

/* Widths of a token. */
static size_t n_widths(const struct cuda *c) { return (size_t)(c->hp->d_model + SUM_BLOCK - 1) / SUM_BLOCK; }

void cuda_transfer_lay(struct transfer *t)
{
    struct cuda *c = t->c;
    const int64_t n = c->o.n_batch, widths = (int64_t)n_widths(c);
    t->scale = lay_floats(&c->arena, n * widths);
    t->width = arena_alloc(&c->arena, (size_t)(n * widths));
    t->offset = lay_words(&c->arena, n * widths + 1);
    t->packed = arena_alloc(&c->arena, (size_t)(n * widths * SUM_BLOCK) * sizeof(double));
}

void cuda_input_lay(struct cuda *c, struct input *in)
{
    lay_acts(&c->arena, &in->acts, c->o.n_batch, c->hp->d_model);
    if (device_reads_residual(&c->o))
        in->laid = lay_floats(&c->arena, c->o.n_batch * c->hp->d_model);
    cuda_routes_lay(c, &in->routes);
}

/* ---- inputs ---- */

static void spoil_floats(float *to, size_t n)
{
    for (size_t i = 0; i < n; i++)
        to[i] = NAN;
}

/* Numbers of experts that there are, at least. */
static void spoil_routes(const struct cuda *c, const struct input_bytes *to, uint32_t n)
{
    for (int64_t i = 0; i < n * c->hp->n_experts_used; i++)
        to->expert[i] = (uint32_t)(i % c->hp->n_experts_used);
    spoil_floats(to->weight, n * (size_t)model_route_weights(c->hp));
}

static void spoil_input(const struct input_bytes *to, size_t values)
{
    if (to->f32)
        spoil_floats(to->f32, values);
    else {
        memset(to->codes, 0, values);
        spoil_floats(to->scale, values / ACT_BLOCK);
    }
    if (to->residual)
        spoil_floats(to->residual, values);
}

/* Bytes of n tokens' numbers of experts, and of their weights. */
static size_t expert_bytes(const struct cuda *c, uint32_t n)
{
    return n * (size_t)c->hp->n_experts_used * sizeof(uint32_t);
}
static size_t weight_bytes(const struct cuda *c, uint32_t n)
{
    return n * (size_t)model_route_weights(c->hp) * sizeof(float);
}

/* int8 blocks are four times smaller than floats and change no bit. */
void cuda_input_export(struct transfer *t, const struct work *w, const struct input *in, const struct input_bytes *to)
{
    struct cuda *c = t->c;
    const size_t values = (size_t)w->n * (size_t)c->hp->d_model;
    if (to->f32) {
        download(c, to->f32, in->acts.f32, values * sizeof *to->f32);
    } else {
        gpu_take_scales(&c->gpu, in->acts.blocks, (int64_t)(values / ACT_BLOCK), t->scale);
        download(c, to->codes, in->acts.codes, values);
        download(c, to->scale, t->scale, values / ACT_BLOCK * sizeof *to->scale);
    }
    if (to->residual)
        download(c, to->residual, in->residual, values * sizeof *to->residual);
    if (to->expert) {
        download(c, to->expert, in->routes.expert, expert_bytes(c, w->n));
        download(c, to->weight, in->routes.weight, weight_bytes(c, w->n));
    }
    await(c);
    if (c->lost)
        spoil_input(to, values);
    if (c->lost && to->expert)
        spoil_routes(c, to, w->n);
}

void cuda_input_import(struct transfer *t, const struct work *w, const struct input_bytes *from, struct input *in)
{
    struct cuda *c = t->c;
    const size_t values = (size_t)w->n * (size_t)c->hp->d_model;
    in->residual = in->laid;
    if (from->residual && in->laid)
        upload(c, in->laid, from->residual, values * sizeof *from->residual);
    if (from->expert) {
        upload(c, in->routes.expert, from->expert, expert_bytes(c, w->n));
        upload(c, in->routes.weight, from->weight, weight_bytes(c, w->n));
    }
    if (from->f32) {
        upload(c, in->acts.f32, from->f32, values * sizeof *from->f32);
        if (readers_of(&c->o, x_of(w->part), w->layer).q8)
            gpu_quantize(&c->gpu, &in->acts, w->n);
        return;
    }
    upload(c, in->acts.codes, from->codes, values);
    upload(c, t->scale, from->scale, values / ACT_BLOCK * sizeof *from->scale);
    gpu_give_scales(&c->gpu, t->scale, (int64_t)(values / ACT_BLOCK), in->acts.blocks);
    gpu_sum_blocks(&c->gpu, &in->acts, w->n);
}

/* ---- sums ---- */

/* Bytes of the first n widths' sums. */
static size_t packed_sums(const uint8_t *width, size_t n)
{
    size_t bytes = 0;
    for (size_t i = 0; i < n; i++)
        bytes += width[i];
    return bytes * SUM_BLOCK;
}

static void spoil_sums(const struct sum_bytes *to, size_t widths)
{
    const double none = NAN;
    memset(to->width, sizeof none, widths);
    for (size_t i = 0; i < widths * SUM_BLOCK; i++)
        memcpy(to->packed + i * sizeof none, &none, sizeof none);
}

void cuda_sums_export(struct transfer *t, uint32_t n, const struct sums *sums, bool f16, const struct sum_bytes *to)
{
    struct cuda *c = t->c;
    const size_t widths = n * n_widths(c);
    gpu_pack_sums(&c->gpu, &sums->of, n, c->hp->d_model, f16, t->width, t->offset, t->packed);
    download(c, to->width, t->width, widths);
    await(c);
    if (!c->lost) {
        download(c, to->packed, t->packed, packed_sums(to->width, widths));
        await(c);
    }
    if (c->lost)
        spoil_sums(to, widths);
}

void cuda_sums_import(struct transfer *t, uint32_t n, const struct sum_bytes *from, const struct sums *sums)
{
    struct cuda *c = t->c;
    const size_t widths = n * n_widths(c);
    upload(c, t->width, from->width, widths);
    upload(c, t->packed, from->packed, packed_sums(from->width, widths));
    gpu_add_packed(&c->gpu, &sums->of, n, c->hp->d_model, t->width, t->offset, t->packed);
}
