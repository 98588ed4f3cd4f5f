#include "device/heads.h"

#include "device/decisions.h"

void heads_lay(const struct laying *to, int layer, struct heads *h)
{
    const struct hparams *hp = &to->o->model->hp;
    const struct layer_weights *f = &to->o->model->layers[layer];
    h->begin = to->o->shard->layers[layer].head_begin;
    h->end = to->o->shard->layers[layer].head_end;
    const int64_t n = h->end - h->begin, kv = hp->head_dim, q = queries(hp) * kv;
    if (!n)
        return;
    lay_matrix(to->arena, &h->q, &f->q, n * q, f->q.cols);
    lay_matrix(to->arena, &h->k, &f->k, n * kv, f->k.cols);
    lay_matrix(to->arena, &h->v, &f->v, n * kv, f->v.cols);
    lay_matrix(to->arena, &h->o, &f->o, f->o.rows, n * q);
    h->o.segment = head_segment(to->o->model);
    h->q_bias = lay_part(to->arena, &f->q_bias, n * q);
    h->k_bias = lay_part(to->arena, &f->k_bias, n * kv);
    h->v_bias = lay_part(to->arena, &f->v_bias, n * kv);
    h->q_norm = lay_vector(to->arena, &f->q_norm);
    h->k_norm = lay_vector(to->arena, &f->k_norm);
    h->sinks = lay_part(to->arena, &f->sinks, n * queries(hp));
}

void heads_load(struct loading *l, int layer, struct heads *to)
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
    load_part(l, to->sinks, &from->sinks, to->begin * q / kv, n * q / kv);
}
