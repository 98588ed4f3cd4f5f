/* Loading: this rank's weights are repacked from its own copy of the file, on all threads; the file's pages are then
 * let go. Nothing else of the file is read. */
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/exactmath.h"
#include "worker/internal.h"

struct loading {
    struct worker *w;
    uint64_t done, total, shown; /* bytes of the arena */
    struct packed *to;
    const struct matrix *from;
    const uint8_t *src;          /* first row's first block of the slice */
};

static void fill_groups(void *arg, int64_t begin, int64_t end, int thread)
{
    struct loading *l = arg;
    (void)thread;
    packed_fill(l->to, begin, end, l->src, dtype_row_bytes(l->from->type, l->from->cols), NULL);
}

static void show(struct loading *l, uint64_t bytes)
{
    l->done += bytes;
    if (l->w->o.progress && (l->done - l->shown > l->total / 200 || l->done == l->total)) {
        l->w->o.progress(l->w->o.progress_arg, "loading", l->done, l->total);
        l->shown = l->done;
    }
}

/* Rows [row, row + to->rows), columns [col, col + to->cols) of `from`. */
static void load_slice(struct loading *l, struct packed *to, const struct matrix *from, int64_t row, int64_t col)
{
    size_t row_bytes = dtype_row_bytes(from->type, from->cols);
    if (!to->groups || !to->cols)
        return;
    l->to = to;
    l->from = from;
    l->src = from->data + (size_t)row * row_bytes + dtype_row_bytes(from->type, col);
    pool_for(l->w->pool, to->groups, 16, fill_groups, l);
    if (to->cols == from->cols)
        gguf_release_pages(l->w->o.model->file, l->src, (uint64_t)to->rows * row_bytes);
    show(l, packed_bytes(to));
}

static void load_vector(struct loading *l, float *to, const struct matrix *from)
{
    if (!to)
        return;
    dequantize_row(from->type, from->data, from->cols, to);
    show(l, (uint64_t)from->cols * sizeof *to);
}

static void load_layer(struct loading *l, int i)
{
    struct stage_layer *to = &l->w->stage.layers[i - l->w->stage.first];
    const struct layer_weights *from = &l->w->o.model->layers[i];
    load_vector(l, to->attn_norm, &from->attn_norm);
    load_vector(l, to->ffn_norm, &from->ffn_norm);
    load_slice(l, &to->q, &from->q, 0, 0);
    load_slice(l, &to->k, &from->k, 0, 0);
    load_slice(l, &to->v, &from->v, 0, 0);
    load_slice(l, &to->o, &from->o, 0, 0);
    load_vector(l, to->q_bias, &from->q_bias);
    load_vector(l, to->k_bias, &from->k_bias);
    load_vector(l, to->v_bias, &from->v_bias);
    load_vector(l, to->o_bias, &from->o_bias);
    load_vector(l, to->q_norm, &from->q_norm);
    load_vector(l, to->k_norm, &from->k_norm);
}

static void load_shard(struct loading *l, int i)
{
    struct shard *to = &l->w->shards[i];
    const struct layer_weights *from = &l->w->o.model->layers[i];
    if (to->begin == to->end)
        return;
    load_slice(l, &to->gate, &from->gate, to->begin, 0);
    load_slice(l, &to->up, &from->up, to->begin, 0);
    load_slice(l, &to->down, &from->down, 0, to->begin);
}

status worker_load(struct worker *w)
{
    const struct model *m = w->o.model;
    struct loading l = {.w = w, .total = w->weight_bytes};
    if (w->stage.first < w->stage.last)
        rope_freqs(m->hp.rope_base, m->hp.n_rot, (const float *)m->rope_factors.data, w->stage.rope_freq);
    for (int i = 0; i < m->hp.n_layers; i++) {
        if (i >= w->stage.first && i < w->stage.last)
            load_layer(&l, i);
        load_shard(&l, i);
    }
    load_vector(&l, w->stage.out_norm, &m->out_norm);
    load_slice(&l, &w->rows.weights, &m->output, w->rows.begin, 0);
    if (w->o.progress)
        w->o.progress(w->o.progress_arg, "loading", l.total, l.total);
    return ST_OK;
}
