#include "device/cuda/output.h"

#include <math.h>

#include "kernels/cuda/products.h"
#include "kernels/cuda/stream.h"

enum { AT_ONCE = 16 }; /* tokens: a vocabulary is large */

void cuda_output_lay_weights(struct cuda *c, struct output *o)
{
    const struct shard *s = c->o.shard;
    lay_matrix(&c->arena, &o->rows, &c->o.model->output, s->row_end - s->row_begin, c->o.model->output.cols);
}

void cuda_output_lay_buffers(struct cuda *c, struct output *o)
{
    const int64_t n = c->o.n_batch < AT_ONCE ? c->o.n_batch : AT_ONCE;
    if (o->rows.rows)
        o->logits = lay_floats(&c->arena, n * o->rows.rows);
}

void cuda_output_load(struct loading *l, struct output *o)
{
    load_packed(l, &o->rows, &l->o->model->output, l->o->shard->row_begin, 0, NULL);
}

/* Tokens from t on. */
static struct acts tokens_from(const struct acts *a, int64_t t)
{
    return (struct acts){.cols = a->cols, .f32 = a->f32 + t * a->cols, .codes = a->codes + t * a->cols,
                         .blocks = a->blocks + t * a->cols / ACT_BLOCK};
}

/* A lost GPU's logits are no numbers: whoever looks at them sees it. */
static void spoil(const struct output *o, uint32_t n, float *logits, int64_t stride)
{
    for (uint32_t t = 0; t < n; t++)
        for (int64_t i = 0; i < o->rows.rows; i++)
            logits[t * stride + i] = NAN;
}

void cuda_output_compute(struct cuda *c, const struct output *o, const struct acts *x, uint32_t n, float *logits,
                         int64_t stride)
{
    const int64_t rows = o->rows.rows;
    for (uint32_t t = 0; t < n && rows; t += AT_ONCE) {
        const uint32_t some = n - t < AT_ONCE ? n - t : AT_ONCE;
        const struct acts from = tokens_from(x, t);
        const struct gpu_product p = {.m = o->rows, .y = o->logits, .y_stride = rows};
        gpu_matmul(&c->gpu, &p, 1, &from, some);
        if (c->hp->logit_scale != 1 || c->hp->logit_softcap > 0)
            gpu_finish_logits(&c->gpu, o->logits, some * rows, c->hp->logit_scale, c->hp->logit_softcap);
        for (uint32_t i = 0; i < some; i++)
            download(c, logits + (t + i) * stride, o->logits + i * rows, (size_t)rows * sizeof *logits);
    }
    await(c);
    if (c->lost)
        spoil(o, n, logits, stride);
    c->counts.bytes += packed_bytes(&o->rows);
}
