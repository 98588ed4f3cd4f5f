#include "device/cuda/heads.h"

#include "device/decisions.h"

/* What is the same for all layers. */
static struct gpu_heads shape_of(const struct hparams *hp, int64_t n)
{
    return (struct gpu_heads){.n_kv = n, .shared = queries(hp), .dim = hp->head_dim, .half = hp->n_rot / 2,
                              .neox = hp->rope_neox, .window = hp->window, .eps = hp->norm_eps};
}

void cuda_heads_lay(struct cuda *c, int layer, struct heads *h)
{
    const struct layer_weights *f = &c->o.model->layers[layer];
    h->begin = c->o.shard->layers[layer].head_begin;
    h->end = c->o.shard->layers[layer].head_end;
    const int64_t n = h->end - h->begin, kv = c->hp->head_dim, q = queries(c->hp) * kv;
    if (!n)
        return;
    lay_matrix(&c->arena, &h->q, &f->q, n * q, f->q.cols);
    lay_matrix(&c->arena, &h->k, &f->k, n * kv, f->k.cols);
    lay_matrix(&c->arena, &h->v, &f->v, n * kv, f->v.cols);
    lay_matrix(&c->arena, &h->o, &f->o, f->o.rows, n * q);
    h->o.segment = head_segment(c->o.model);
    h->of = shape_of(c->hp, n);
    h->of.q_bias = h->q_bias = lay_part(&c->arena, &f->q_bias, n * q);
    h->of.k_bias = h->k_bias = lay_part(&c->arena, &f->k_bias, n * kv);
    h->of.v_bias = h->v_bias = lay_part(&c->arena, &f->v_bias, n * kv);
    h->of.q_norm = h->q_norm = lay_vector(&c->arena, &f->q_norm);
    h->of.k_norm = h->k_norm = lay_vector(&c->arena, &f->k_norm);
}

void cuda_heads_lay_pages(struct cuda *c, struct heads *h)
{
    const size_t page = KV_PAGE * (size_t)c->hp->head_dim * sizeof *h->of.k;
    const size_t bytes = (size_t)(h->end - h->begin) * c->o.n_pages * page;
    h->of.n_pages = c->o.n_pages;
    h->of.k = arena_alloc(&c->arena, bytes);
    h->of.v = arena_alloc(&c->arena, bytes);
}

void cuda_heads_load(struct loading *l, int layer, struct heads *to)
{
    const struct layer_weights *from = &l->o->model->layers[layer];
    const int64_t kv = l->o->model->hp.head_dim, q = queries(&l->o->model->hp) * kv, n = to->end - to->begin;
    load_packed(l, &to->q, &from->q, to->begin * q, 0, NULL);
    load_packed(l, &to->k, &from->k, to->begin * kv, 0, NULL);
    load_packed(l, &to->v, &from->v, to->begin * kv, 0, NULL);
    load_packed(l, &to->o, &from->o, 0, to->begin * q, NULL);
    load_part(l, to->q_bias, &from->q_bias, to->begin * q, n * q);
    load_part(l, to->k_bias, &from->k_bias, to->begin * kv, n * kv);
    load_part(l, to->v_bias, &from->v_bias, to->begin * kv, n * kv);
    load_vector(l, to->q_norm, &from->q_norm);
    load_vector(l, to->k_norm, &from->k_norm);
}
