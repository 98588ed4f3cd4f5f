#include "device/delta_heads.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "device/decisions.h"

void delta_heads_lay(const struct laying *to, int layer, struct delta_heads *h)
{
    const struct hparams *hp = &to->o->model->hp;
    const struct layer_weights *f = &to->o->model->layers[layer];
    if (hp->layer[layer].kind != LAYER_DELTA)
        return;
    h->begin = to->o->shard->layers[layer].head_begin;
    h->end = to->o->shard->layers[layer].head_end;
    const int64_t d = hp->d_model, size = hp->delta.size, values = delta_values(hp, h),
                  channels = delta_channels(hp, h);
    const struct matrix *both = f->beta_alpha.data ? &f->beta_alpha : NULL;
    if (h->begin == h->end)
        return;
    lay_matrix(to->arena, &h->qkv, &f->qkv, channels, d);
    lay_matrix(to->arena, &h->z, &f->z, values * size, d);
    lay_matrix(to->arena, &h->beta, both ? both : &f->beta, values, d);
    lay_matrix(to->arena, &h->alpha, both ? both : &f->alpha, values, d);
    lay_matrix(to->arena, &h->o, &f->o, d, values * size);
    h->o.segment = head_segment(to->o->model, layer);
    h->taps = lay_floats(to->arena, hp->delta.taps * channels);
    h->dt_bias = lay_floats(to->arena, values);
    h->decay = lay_floats(to->arena, values);
    h->head_norm = lay_floats(to->arena, size);
}

/* What loading needs of memory, for a while. */
static void *room(struct loading *l, int64_t n, size_t bytes)
{
    void *p = malloc((size_t)n * bytes);
    if (!p && !l->failed) {
        log_error("out of memory for the rows of a delta net");
        l->failed = ST_NOMEM;
    }
    return p;
}

/* ---- where own heads are in the file ---- */

static int64_t value_head(const struct hparams *hp, const struct delta_heads *to, int64_t i)
{
    const int64_t n = to->end - to->begin;
    return hp->delta.in_turn ? i / n * hp->delta.key_heads + to->begin + i % n : to->begin * delta_ratio(hp) + i;
}

/* Rows, or values, of own value heads, each of `size`: behind those of so many heads. */
static void value_rows(const struct hparams *hp, const struct delta_heads *to, int64_t behind, int64_t size,
                       int32_t *ids)
{
    for (int64_t i = 0; i < delta_values(hp, to) * size; i++)
        ids[i] = (int32_t)((behind + value_head(hp, to, i / size)) * size + i % size);
}

static void channel_rows(const struct hparams *hp, const struct delta_heads *to, int32_t *ids)
{
    const int64_t size = hp->delta.size, n = (to->end - to->begin) * size;
    for (int64_t i = 0; i < 2 * n; i++)
        ids[i] = (int32_t)((i / n * hp->delta.key_heads + to->begin) * size + i % n);
    value_rows(hp, to, 2 * hp->delta.key_heads, size, ids + 2 * n);
}

/* ---- loading ---- */

/* Beta and alpha where they lie key head by key head, whose value heads follow each other. */
static void load_both(struct loading *l, const struct hparams *hp, const struct matrix *from, struct delta_heads *to,
                      int32_t *ids)
{
    const int64_t ratio = delta_ratio(hp);
    for (int alpha = 0; alpha < 2; alpha++) {
        for (int64_t i = 0; i < delta_values(hp, to); i++) {
            const int64_t head = value_head(hp, to, i);
            ids[i] = (int32_t)((2 * (head / ratio) + alpha) * ratio + head % ratio);
        }
        load_packed(l, alpha ? &to->alpha : &to->beta, from, 0, 0, ids);
    }
}

/* A tap's values of all channels lie together, for a lane is a channel. */
static void load_taps(struct loading *l, const struct hparams *hp, const struct matrix *from, struct delta_heads *to,
                      const int32_t *ids)
{
    const int64_t taps = hp->delta.taps, channels = delta_channels(hp, to);
    float row[MOST_TAPS], *all = room(l, taps * channels, sizeof *all);
    loading_reads(l, from, 0, from->rows);
    for (int64_t c = 0; c < channels && !l->failed; c++) {
        dequantize_row(from->type, from->data + (size_t)ids[c] * dtype_row_bytes(from->type, taps), taps, row);
        for (int64_t i = 0; i < taps; i++)
            all[i * channels + c] = row[i];
    }
    if (!l->failed)
        load_array(l, to->taps, all, (size_t)(taps * channels) * sizeof *all);
    free(all);
}

/* The own columns of each value head of key heads in turn, side by side. GPUs have no delta nets, so the host's memory
 * is written. */
static void load_in_turn(struct loading *l, const struct hparams *hp, const struct matrix *from, struct delta_heads *to)
{
    const int64_t size = hp->delta.size, ratio = delta_ratio(hp);
    const size_t stride = dtype_row_bytes(from->type, from->cols), every = stride / (size_t)ratio;
    const size_t own = dtype_row_bytes(from->type, (to->end - to->begin) * size);
    const size_t first = dtype_row_bytes(from->type, to->begin * size);
    uint8_t *all = room(l, from->rows * ratio, own);
    loading_reads(l, from, 0, from->rows);
    for (int64_t i = 0; i < from->rows * ratio && !l->failed; i++)
        memcpy(all + (size_t)i * own, from->data + (size_t)(i / ratio) * stride + (size_t)(i % ratio) * every + first,
               own);
    if (!l->failed)
        packed_fill(&to->o, 0, to->o.groups, all, (size_t)ratio * own, NULL);
    free(all);
}

void delta_heads_load(struct loading *l, int layer, struct delta_heads *to)
{
    const struct hparams *hp = &l->o->model->hp;
    const struct layer_weights *from = &l->o->model->layers[layer];
    const bool whole = to->end - to->begin == hp->delta.key_heads;
    if (l->failed || to->begin == to->end)
        return;
    int32_t *ids = room(l, delta_channels(hp, to), sizeof *ids);
    if (ids) {
        channel_rows(hp, to, ids);
        load_packed(l, &to->qkv, &from->qkv, 0, 0, whole ? NULL : ids);
        load_taps(l, hp, &from->taps, to, ids);
        value_rows(hp, to, 0, hp->delta.size, ids);
        load_packed(l, &to->z, &from->z, 0, 0, whole ? NULL : ids);
        value_rows(hp, to, 0, 1, ids);
        load_values(l, to->dt_bias, &from->dt_bias, ids, delta_values(hp, to));
        load_values(l, to->decay, &from->decay, ids, delta_values(hp, to));
        if (!from->beta_alpha.data) {
            load_packed(l, &to->beta, &from->beta, 0, 0, ids);
            load_packed(l, &to->alpha, &from->alpha, 0, 0, ids);
        } else {
            load_both(l, hp, &from->beta_alpha, to, ids);
        }
    }
    load_vector(l, to->head_norm, &from->head_norm);
    if (hp->delta.in_turn && !whole)
        load_in_turn(l, hp, &from->o, to);
    else
        load_packed(l, &to->o, &from->o, 0, to->begin * delta_ratio(hp) * hp->delta.size, NULL);
    free(ids);
}
