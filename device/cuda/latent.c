#include "device/cuda/latent.h"

#include "kernels/cuda/products.h"
#include "kernels/cuda/stream.h"

/* Queries, or what they come through, and c with its turned key. */
static void project_x(const struct latent_work *w)
{
    const bool low = w->c->hp->latent.q_rank > 0;
    const struct packed *q = low ? &w->h->q_low : &w->h->q;
    const struct gpu_product p[] = {{.m = *q, .y = low ? w->room->low.f32 : w->room->query, .y_stride = q->rows},
                                    {.m = w->h->k, .y = w->room->kept, .y_stride = w->h->k.rows}};
    gpu_matmul(&w->c->gpu, p, 2, w->x, w->batch->n);
}

/* Queries of what they come through, normed in its place. */
static void project_low(const struct latent_work *w)
{
    const struct acts *low = &w->room->low;
    const struct gpu_norm norm = {.rms = true, .quantise = dtype_is_quantised(w->h->q.type), .d = low->cols,
                                  .eps = w->c->hp->norm_eps, .w = w->h->q_low_norm};
    const struct gpu_product p = {.m = w->h->q, .y = w->room->query, .y_stride = w->h->q.rows};
    gpu_norm(&w->c->gpu, &norm, low->f32, NULL, w->batch->n, low, (struct gpu_fault){0});
    gpu_matmul(&w->c->gpu, &p, 1, low, w->batch->n);
}

/* The tokens of each head, times its rows of m: head h's at y + h * y_head. */
static void multiply_heads(const struct latent_work *w, const struct packed *m, const struct acts *x, float *y,
                           int64_t y_head, int64_t y_stride)
{
    const int64_t heads = w->of->shared, n = w->batch->n, values = n * x->cols;
    struct gpu_product p = {.m = *m, .y_stride = y_stride};
    p.m.groups = m->groups / heads;
    p.m.rows = m->rows / heads;
    for (int64_t h = 0; h < heads; h++) {
        const struct acts of_head = {.cols = x->cols, .f32 = x->f32 + h * values, .codes = x->codes + h * values,
                                     .blocks = x->blocks + h * values / ACT_BLOCK};
        p.m.data = m->data + (size_t)(h * p.m.groups) * m->group_bytes;
        p.y = y + h * y_head;
        gpu_matmul(&w->c->gpu, &p, 1, &of_head, n);
    }
}

void cuda_latent_project(const struct latent_work *w, float *q, const struct gpu_clearing *clearing)
{
    const struct gpu *g = &w->c->gpu;
    const struct gpu_heads *of = w->of;
    const struct gpu_latent l = {.dim = w->c->hp->head_dim, .c_norm = w->h->c_norm, .query = w->room->query,
                                 .kept = w->room->kept, .plain = w->room->plain.f32, .q = q};
    project_x(w);
    if (w->c->hp->latent.q_rank > 0)
        project_low(w);
    gpu_turn_latent(g, w->batch, of, &l, clearing);
    if (dtype_is_quantised(w->h->q_in.type))
        gpu_quantize(g, &w->room->plain, of->shared * w->batch->n);
    multiply_heads(w, &w->h->q_in, &w->room->plain, q, of->dim, of->shared * of->dim);
}

bool cuda_latent_reads_codes(const struct heads *h) { return dtype_is_quantised(h->c_out.type); }

void cuda_latent_read(const struct latent_work *w, float *values)
{
    const int64_t value = w->c->hp->value_dim;
    multiply_heads(w, &w->h->c_out, &w->room->mixed, values, value, w->of->shared * value);
}
