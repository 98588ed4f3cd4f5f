#include "device/heads.h"

#include <stdlib.h>

#include "base/log.h"
#include "device/decisions.h"

/* What turns c into plain keys lies the other way round for queries: floats, whatever the file has. */
static const struct matrix floats = {.type = DT_F32};

/* What all heads share is whole on every holder. */
static void lay_latent(const struct laying *to, const struct layer_weights *f, const struct hparams *hp, int64_t n,
                       struct heads *h)
{
    lay_matrix(to->arena, &h->k, &f->k, f->k.rows, f->k.cols);
    if (f->q_low.data)
        lay_matrix(to->arena, &h->q_low, &f->q_low, f->q_low.rows, f->q_low.cols);
    lay_matrix(to->arena, &h->q_in, f->c_both.data ? &floats : &f->q_in, n * hp->latent.rank, hp->head_dim - hp->n_rot);
    lay_matrix(to->arena, &h->c_out, f->c_both.data ? &f->c_both : &f->c_out, n * hp->value_dim, hp->latent.rank);
    h->q_low_norm = lay_vector(to->arena, &f->q_low_norm);
    h->c_norm = lay_vector(to->arena, &f->c_norm);
}

void heads_lay(const struct laying *to, int layer, struct heads *h)
{
    const struct hparams *hp = &to->o->model->hp;
    const struct layer_weights *f = &to->o->model->layers[layer];
    if (hp->layer[layer].kind != LAYER_ATTENTION)
        return;
    h->begin = to->o->shard->layers[layer].head_begin;
    h->end = to->o->shard->layers[layer].head_end;
    const int64_t n = h->end - h->begin, kv = hp->head_dim, q = queries(hp) * kv;
    if (!n)
        return;
    lay_matrix(to->arena, &h->q, &f->q, n * q, f->q.cols);
    if (hp->gated)
        lay_matrix(to->arena, &h->gate, &f->q, n * q, f->q.cols);
    if (hp->latent.rank) {
        lay_latent(to, f, hp, n, h);
    } else {
        lay_matrix(to->arena, &h->k, &f->k, n * kv, f->k.cols);
        lay_matrix(to->arena, &h->v, &f->v, n * kv, f->v.cols);
    }
    lay_matrix(to->arena, &h->o, &f->o, f->o.rows, n * queries(hp) * hp->value_dim);
    h->o.segment = head_segment(to->o->model, layer);
    h->q_bias = lay_part(to->arena, &f->q_bias, n * q);
    h->k_bias = lay_part(to->arena, &f->k_bias, n * kv);
    h->v_bias = lay_part(to->arena, &f->v_bias, n * kv);
    h->q_norm = lay_vector(to->arena, &f->q_norm);
    h->k_norm = lay_vector(to->arena, &f->k_norm);
    h->sinks = lay_part(to->arena, &f->sinks, n * queries(hp));
}

/* to[j, i] = the plain key i that is made of c's value j, of head h. */
static void turn_keys(const struct hparams *hp, const struct matrix *both, int64_t h, float *row, float *to)
{
    const int64_t plain = hp->head_dim - hp->n_rot, rank = hp->latent.rank;
    const size_t bytes = dtype_row_bytes(both->type, rank);
    for (int64_t i = 0; i < plain; i++) {
        dequantize_row(both->type, both->data + (size_t)(h * (plain + hp->value_dim) + i) * bytes, rank, row);
        for (int64_t j = 0; j < rank; j++)
            to[j * plain + i] = row[j];
    }
}

/* Both ways of c, from one matrix. */
static void load_both(struct loading *l, const struct matrix *both, const struct hparams *hp, struct heads *to)
{
    const int64_t n = to->end - to->begin, plain = hp->head_dim - hp->n_rot, rank = hp->latent.rank;
    const int64_t rows = plain + hp->value_dim;
    if (l->failed || n == 0)
        return;
    struct packed packed = to->q_in;
    float *keys = malloc((size_t)((n * plain + 1) * rank) * sizeof *keys);
    int32_t *values = malloc((size_t)(n * hp->value_dim) * sizeof *values);
    packed.data = malloc(packed_bytes(&packed));
    if (keys && values && packed.data) {
        for (int64_t h = 0; h < n; h++)
            turn_keys(hp, both, to->begin + h, keys + n * plain * rank, keys + h * plain * rank);
        for (int64_t i = 0; i < n * hp->value_dim; i++)
            values[i] = (int32_t)((to->begin + i / hp->value_dim) * rows + plain + i % hp->value_dim);
        loading_reads(l, both, to->begin * rows, n * rows);
        packed_fill(&packed, 0, packed.groups, (const uint8_t *)keys, (size_t)plain * sizeof *keys, NULL);
        load_array(l, to->q_in.data, packed.data, packed_bytes(&packed));
        load_packed(l, &to->c_out, both, 0, 0, values);
    } else {
        log_error("out of memory for the keys of a layer");
        l->failed = ST_NOMEM;
    }
    free(packed.data);
    free(keys);
    free(values);
}

static void load_latent(struct loading *l, const struct layer_weights *from, const struct hparams *hp, struct heads *to)
{
    load_packed(l, &to->q_low, &from->q_low, 0, 0, NULL);
    if (from->c_both.data) {
        load_both(l, &from->c_both, hp, to);
    } else {
        load_packed(l, &to->q_in, &from->q_in, to->begin * hp->latent.rank, 0, NULL);
        load_packed(l, &to->c_out, &from->c_out, to->begin * hp->value_dim, 0, NULL);
    }
    load_vector(l, to->q_low_norm, &from->q_low_norm);
    load_vector(l, to->c_norm, &from->c_norm);
}

/* Each head's queries, and its gates, which lie behind them. */
static void load_gated(struct loading *l, const struct matrix *from, const struct hparams *hp, struct heads *to)
{
    const int64_t dim = hp->head_dim, rows = to->q.rows, first = to->begin * queries(hp);
    int32_t *ids = malloc((size_t)(rows + 1) * sizeof *ids);
    if (!ids && !l->failed) {
        log_error("out of memory for the rows of a layer's queries");
        l->failed = ST_NOMEM;
    }
    for (int gate = 0; gate < 2 && !l->failed && rows; gate++) {
        for (int64_t i = 0; i < rows; i++)
            ids[i] = (int32_t)((2 * (first + i / dim) + gate) * dim + i % dim);
        load_packed(l, gate ? &to->gate : &to->q, from, 0, 0, ids);
    }
    free(ids);
}

void heads_load(struct loading *l, int layer, struct heads *to)
{
    const struct layer_weights *from = &l->o->model->layers[layer];
    const struct hparams *hp = &l->o->model->hp;
    const int64_t kv = hp->head_dim, q = queries(hp) * kv, n = to->end - to->begin;
    if (hp->gated)
        load_gated(l, &from->q, hp, to);
    else
        load_packed(l, &to->q, &from->q, to->begin * q, 0, NULL);
    load_packed(l, &to->k, &from->k, hp->latent.rank ? 0 : to->begin * kv, 0, NULL);
    load_packed(l, &to->v, &from->v, to->begin * kv, 0, NULL);
    load_packed(l, &to->o, &from->o, 0, to->begin * queries(hp) * hp->value_dim, NULL);
    if (hp->latent.rank)
        load_latent(l, from, hp, to);
    load_part(l, to->q_bias, &from->q_bias, to->begin * q, n * q);
    load_part(l, to->k_bias, &from->k_bias, to->begin * kv, n * kv);
    load_part(l, to->v_bias, &from->v_bias, to->begin * kv, n * kv);
    load_vector(l, to->q_norm, &from->q_norm);
    load_vector(l, to->k_norm, &from->k_norm);
    load_part(l, to->sinks, &from->sinks, to->begin * q / kv, n * q / kv);
}
