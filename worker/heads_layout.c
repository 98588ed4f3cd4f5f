/* This rank's KV heads: where their arrays lie, and filling those from the file. */
#include "base/log.h"
#include "worker/internal.h"

static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

/* Query heads that share a KV head. */
static int64_t queries(const struct worker *w) { return w->o.model->hp.n_heads / w->o.model->hp.n_kv_heads; }

/* A part of a vector of all heads, for own heads of `size` values each. */
static float *lay_part(struct worker *w, const struct matrix *m, const struct heads *h, int64_t size)
{
    return m->data ? lay_floats(w, (h->end - h->begin) * size) : NULL;
}

/* Segments that end where these columns do: the longest of whole blocks, but no longer than those of neurons. */
static int64_t segment_of(int64_t columns)
{
    const int64_t block = columns % ACT_BLOCK ? 1 : ACT_BLOCK;
    int64_t segment = SUM_SEGMENT;
    while (columns % segment)
        segment -= block;
    return segment;
}

static void lay_heads(struct worker *w, int layer)
{
    const struct layer_weights *f = &w->o.model->layers[layer];
    const struct hparams *hp = &w->o.model->hp;
    struct heads *h = &w->heads[layer];
    plan_heads(w->o.plan, layer, w->rank, hp->n_kv_heads, &h->begin, &h->end);
    const int64_t n = h->end - h->begin, kv = hp->head_dim, q = queries(w) * kv;
    if (!n)
        return;
    lay_matrix(w, &h->q, &f->q, n * q, f->q.cols);
    lay_matrix(w, &h->k, &f->k, n * kv, f->k.cols);
    lay_matrix(w, &h->v, &f->v, n * kv, f->v.cols);
    lay_matrix(w, &h->o, &f->o, f->o.rows, n * q);
    h->o.segment = segment_of(model_head_unit(w->o.model) * q); /* wherever the plan cuts heads */
    h->q_bias = lay_part(w, &f->q_bias, h, q);
    h->k_bias = lay_part(w, &f->k_bias, h, kv);
    h->v_bias = lay_part(w, &f->v_bias, h, kv);
    h->q_norm = lay_vector(w, &f->q_norm);
    h->k_norm = lay_vector(w, &f->k_norm);
}

void worker_lay_heads(struct worker *w)
{
    for (int i = 0; i < w->o.model->hp.n_layers; i++)
        lay_heads(w, i);
}

void worker_lay_caches(struct worker *w)
{
    for (int i = 0; i < w->o.model->hp.n_layers; i++) {
        struct heads *h = &w->heads[i];
        h->k_cache = arena_alloc(&w->arena, kv_elements(w, h) * sizeof *h->k_cache);
        h->v_cache = arena_alloc(&w->arena, kv_elements(w, h) * sizeof *h->v_cache);
    }
}

void worker_lay_attention(struct worker *w)
{
    const struct hparams *hp = &w->o.model->hp;
    const int64_t n = w->o.n_batch;
    int64_t heads = 0; /* the most of a layer */
    for (int i = 0; i < hp->n_layers; i++)
        heads = larger(heads, w->heads[i].end - w->heads[i].begin);
    if (!heads)
        return;
    w->angles.cos_sin = lay_floats(w, n * hp->n_rot);
    w->q = lay_floats(w, n * heads * queries(w) * hp->head_dim);
    w->k = lay_floats(w, n * heads * hp->head_dim);
    w->v = lay_floats(w, n * heads * hp->head_dim);
    lay_acts(w, &w->mixed, n, heads * queries(w) * hp->head_dim);
    w->score_stride = (w->o.n_ctx + 2 * KV_TILE - 1) / KV_TILE * KV_TILE;
    for (int t = 0; t < w->o.n_threads; t++) {
        w->scratch[t].q = lay_floats(w, QUERY_ROWS * hp->head_dim);
        w->scratch[t].out = lay_floats(w, QUERY_ROWS * hp->head_dim);
        w->scratch[t].scores = lay_floats(w, QUERY_ROWS * w->score_stride);
        w->scratch[t].keys = arena_alloc(&w->arena, (size_t)kv_pages(w) * sizeof *w->scratch->keys);
        w->scratch[t].values = arena_alloc(&w->arena, (size_t)kv_pages(w) * sizeof *w->scratch->values);
    }
}

/* Values [first, first + n) of a vector. */
static void load_part(struct loading *l, float *to, const struct matrix *from, int64_t first, int64_t n)
{
    if (!to)
        return;
    loading_reads(l, from, 0, 1);
    dequantize_row(from->type, from->data + dtype_row_bytes(from->type, first), n, to);
    loading_done(l, (uint64_t)n * sizeof *to);
}

void load_heads(struct loading *l, int layer)
{
    const struct layer_weights *from = &l->w->o.model->layers[layer];
    struct heads *to = &l->w->heads[layer];
    const int64_t kv = l->w->o.model->hp.head_dim, q = queries(l->w) * kv, n = to->end - to->begin;
    load_slice(l, &to->q, &from->q, to->begin * q, 0);
    load_slice(l, &to->k, &from->k, to->begin * kv, 0);
    load_slice(l, &to->v, &from->v, to->begin * kv, 0);
    load_slice(l, &to->o, &from->o, 0, to->begin * q);
    load_part(l, to->q_bias, &from->q_bias, to->begin * q, n * q);
    load_part(l, to->k_bias, &from->k_bias, to->begin * kv, n * kv);
    load_part(l, to->v_bias, &from->v_bias, to->begin * kv, n * kv);
    load_vector(l, to->q_norm, &from->q_norm);
    load_vector(l, to->k_norm, &from->k_norm);
}
