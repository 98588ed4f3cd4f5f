/* Loading: this rank's weights are repacked from its own copy of the file, on all threads; the file's pages are then
 * let go. Nothing else of the file is read. */
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/exactmath.h"
#include "worker/internal.h"

struct slice {
    struct packed *to;
    const struct matrix *from;
    const uint8_t *src;          /* first row's first block of the slice */
};

static void fill_groups(void *arg, int64_t begin, int64_t end, int thread)
{
    struct slice *s = arg;
    (void)thread;
    packed_fill(s->to, begin, end, s->src, dtype_row_bytes(s->from->type, s->from->cols), NULL);
}

void loading_done(struct loading *l, uint64_t bytes)
{
    l->done += bytes;
    if (l->w->o.progress && (l->done - l->shown > l->total / 200 || l->done == l->total)) {
        l->w->o.progress(l->w->o.progress_arg, "loading", l->done, l->total);
        l->shown = l->done;
    }
}

void loading_reads(struct loading *l, const struct matrix *from, int64_t row, int64_t n)
{
    const size_t row_bytes = dtype_row_bytes(from->type, from->cols);
    if (l->w->o.chunks && from->data && n > 0)
        chunks_use(l->w->o.chunks, l->w->pool, from->data + (size_t)row * row_bytes, (size_t)n * row_bytes);
}

void load_slice(struct loading *l, struct packed *to, const struct matrix *from, int64_t row, int64_t col)
{
    size_t row_bytes = dtype_row_bytes(from->type, from->cols);
    if (!to->groups || !to->cols)
        return;
    struct slice s = {to, from, from->data + (size_t)row * row_bytes + dtype_row_bytes(from->type, col)};
    loading_reads(l, from, row, to->rows);
    pool_for(l->w->pool, to->groups, 16, fill_groups, &s);
    if (to->cols == from->cols)
        gguf_release_pages(l->w->o.model->file, s.src, (uint64_t)to->rows * row_bytes);
    loading_done(l, packed_bytes(to));
}

void load_vector(struct loading *l, float *to, const struct matrix *from)
{
    if (!to)
        return;
    loading_reads(l, from, 0, 1);
    dequantize_row(from->type, from->data, from->cols, to);
    loading_done(l, (uint64_t)from->cols * sizeof *to);
}

struct copy {
    uint8_t *to;
    const uint8_t *from;
    size_t bytes;
};

enum { COPIED = 1 << 20 }; /* bytes that a thread takes at a time */

static void copy_piece(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct copy *c = arg;
    const size_t at = (size_t)begin * COPIED, to = (size_t)end * COPIED;
    (void)thread;
    memcpy(c->to + at, c->from + at, (to < c->bytes ? to : c->bytes) - at);
}

void load_bytes(struct loading *l, uint8_t *to, const struct matrix *from, int64_t row, int64_t n)
{
    const size_t row_bytes = dtype_row_bytes(from->type, from->cols);
    struct copy c = {to, from->data + (size_t)row * row_bytes, (size_t)n * row_bytes};
    if (!to)
        return;
    loading_reads(l, from, row, n);
    pool_for(l->w->pool, (int64_t)((c.bytes + COPIED - 1) / COPIED), 1, copy_piece, &c);
    gguf_release_pages(l->w->o.model->file, c.from, c.bytes);
    loading_done(l, c.bytes);
}

static void load_norm(struct loading *l, struct norm_weights to, const struct matrix *weight, const struct matrix *bias)
{
    load_vector(l, to.weight, weight);
    load_vector(l, to.bias, bias);
}

static void load_layer(struct loading *l, int i)
{
    struct stage_layer *to = &l->w->stage.layers[i - l->w->stage.first];
    const struct layer_weights *from = &l->w->o.model->layers[i];
    load_norm(l, to->attn_norm, &from->attn_norm, &from->attn_norm_bias);
    load_norm(l, to->ffn_norm, &from->ffn_norm, &from->ffn_norm_bias);
    load_vector(l, to->o_bias, &from->o_bias);
    load_vector(l, to->down_bias, &from->down_bias);
}

status worker_load(struct worker *w)
{
    const struct model *m = w->o.model;
    struct loading l = {.w = w, .total = w->weight_bytes};
    loading_reads(&l, &m->rope_factors, 0, 1);
    rope_freqs(m->hp.rope_base, m->hp.n_rot, (const float *)m->rope_factors.data, w->rope_freq);
    load_bytes(&l, w->stage.embedding, &m->embedding, 0, m->embedding.rows);
    load_bytes(&l, w->stage.positions, &m->positions, m->hp.position_offset, w->o.n_ctx);
    for (int i = 0; i < m->hp.n_layers; i++) {
        if (i >= w->stage.first && i < w->stage.last)
            load_layer(&l, i);
        load_heads(&l, i);
        load_shard(&l, i);
    }
    load_norm(&l, w->stage.out_norm, &m->out_norm, &m->out_norm_bias);
    load_slice(&l, &w->rows.weights, &m->output, w->rows.begin, 0);
    if (w->o.progress)
        w->o.progress(w->o.progress_arg, "loading", l.total, l.total);
    return ST_OK;
}
