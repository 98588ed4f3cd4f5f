#include "device/loading.h"

#include <string.h>

#include "base/log.h"
#include "model/chunks.h"

enum { COPIED = 1 << 20 }; /* bytes that a thread takes at a time */

/* ---- what it tells whom ---- */

/* So many bytes of weights are in place. */
static void done(const struct loading *l, uint64_t bytes)
{
    if (l->l->loaded)
        l->l->loaded(l->l->arg, bytes);
}

void loading_reads(const struct loading *l, const struct matrix *from, int64_t row, int64_t n)
{
    const size_t row_bytes = dtype_row_bytes(from->type, from->cols);
    if (l->l->chunks && from->data && n > 0)
        chunks_use(l->l->chunks, l->o->pool, from->data + (size_t)row * row_bytes, (size_t)n * row_bytes);
}

/* The rows of n neurons (ids NULL: the first n), and what lies between them. */
static void reads_neurons(const struct loading *l, const struct matrix *from, const int32_t *ids, int64_t n)
{
    const int64_t first = ids ? ids[0] : 0, last = ids ? ids[n - 1] : n - 1;
    loading_reads(l, from, first, last + 1 - first);
}

/* ---- where it writes ---- */

static void *begin(struct loading *l, void *to, size_t bytes)
{
    return l->taking ? l->taking->begin(l, to, bytes) : to;
}

static void end(struct loading *l)
{
    if (l->taking)
        l->taking->end(l);
}

/* How many of n things of so many bytes are begun at once; what has failed is none. */
static int64_t piece_of(struct loading *l, const struct matrix *from, int64_t n, size_t bytes)
{
    const int64_t fit = l->taking ? (int64_t)(l->taking->most / bytes) : n;
    if (fit < 1) {
        log_error("%s: rows of %s, 16 together, have %zu bytes, and at most %zu can be loaded at once",
                  gguf_path(l->o->model->file), from->name, bytes, l->taking->most);
        l->failed = ST_UNSUPPORTED;
    }
    return n < fit ? n : fit;
}

/* ---- matrices ---- */

/* A piece that is filled by all threads. */
struct filling {
    struct packed packed;
    struct neuron_rows rows;
    struct neuron_columns columns;
    const uint8_t *src;
    size_t stride;
    const int32_t *ids;
};

static void fill_packed(void *arg, int64_t first, int64_t last, int thread)
{
    struct filling *f = arg;
    (void)thread;
    packed_fill(&f->packed, first, last, f->src, f->stride, f->ids);
}

static void fill_rows(void *arg, int64_t first, int64_t last, int thread)
{
    struct filling *f = arg;
    (void)thread;
    neuron_rows_fill(&f->rows, first, last, f->src, f->stride, f->ids);
}

static void fill_columns(void *arg, int64_t first, int64_t last, int thread)
{
    struct filling *f = arg;
    const int64_t until = last * COLUMN_TILE, rows = f->columns.rows;
    (void)thread;
    neuron_columns_fill(&f->columns, first * COLUMN_TILE, until < rows ? until : rows, f->src, f->stride);
}

/* Where row `row` of those that are wanted is looked for. */
static void begin_at(struct filling *f, const uint8_t *src, const int32_t *ids, int64_t row)
{
    f->src = ids ? src : src + (size_t)row * f->stride;
    f->ids = ids ? ids + row : NULL;
}

void load_packed(struct loading *l, const struct packed *to, const struct matrix *from, int64_t row, int64_t col,
                 const int32_t *ids)
{
    struct filling f = {.packed = *to, .stride = dtype_row_bytes(from->type, from->cols)};
    const uint8_t *src = from->data + (size_t)row * f.stride + dtype_row_bytes(from->type, col);
    if (l->failed || !to->groups || !to->cols)
        return;
    if (ids)
        reads_neurons(l, from, ids, to->rows);
    else
        loading_reads(l, from, row, to->rows);
    for (int64_t g = 0; g < to->groups && !l->failed; g += f.packed.groups) {
        f.packed.groups = piece_of(l, from, to->groups - g, to->group_bytes);
        f.packed.rows = to->rows - g * ROW_GROUP;
        begin_at(&f, src, ids, g * ROW_GROUP);
        f.packed.data = begin(l, to->data + (size_t)g * to->group_bytes, packed_bytes(&f.packed));
        if (!l->failed)
            pool_for(l->o->pool, f.packed.groups, 16, fill_packed, &f);
        end(l);
    }
    if (!ids && to->cols == from->cols)
        gguf_release_pages(l->o->model->file, src, (uint64_t)to->rows * f.stride);
    done(l, packed_bytes(to));
}

void load_rows(struct loading *l, const struct neuron_rows *to, const struct matrix *from, const int32_t *ids)
{
    struct filling f = {.rows = *to, .stride = dtype_row_bytes(from->type, from->cols)};
    if (l->failed || !to->rows)
        return;
    reads_neurons(l, from, ids, to->rows);
    for (int64_t r = 0; r < to->rows && !l->failed; r += f.rows.rows) {
        const int64_t n = piece_of(l, from, to->rows - r, to->top_bytes + to->rest_bytes);
        f.rows.rows = n;
        begin_at(&f, from->data, ids, r);
        f.rows.top = begin(l, to->top + (size_t)r * to->top_bytes, (size_t)n * to->top_bytes);
        f.rows.rest = begin(l, to->rest + (size_t)r * to->rest_bytes, (size_t)n * to->rest_bytes);
        if (!l->failed)
            pool_for(l->o->pool, n, 64, fill_rows, &f);
        end(l);
    }
    done(l, (uint64_t)to->rows * (to->top_bytes + to->rest_bytes));
}

/* A tile of them is written into all columns: they are begun as a whole. */
void load_columns(struct loading *l, const struct neuron_columns *to, const struct matrix *from,
                  const struct neuron_set *set)
{
    const size_t codes = neuron_columns_code_bytes(to), scales = neuron_columns_scale_bytes(to);
    struct filling f = {.columns = *to, .src = from->data, .stride = dtype_row_bytes(from->type, from->cols)};
    if (l->failed)
        return;
    f.columns.codes = begin(l, to->codes, codes);
    f.columns.scales = begin(l, to->scales, scales);
    f.columns.block = set->block;
    f.columns.column = set->column;
    if (to->transposed)
        reads_neurons(l, from, set->ids, set->n);
    else
        loading_reads(l, from, 0, from->rows);
    if (!l->failed)
        pool_for(l->o->pool, (to->rows + COLUMN_TILE - 1) / COLUMN_TILE, 1, fill_columns, &f);
    end(l);
    done(l, codes + scales);
}

/* ---- vectors, bytes ---- */

void load_part(struct loading *l, float *to, const struct matrix *from, int64_t first, int64_t n)
{
    const size_t bytes = (size_t)n * sizeof *to;
    if (!to || l->failed)
        return;
    loading_reads(l, from, 0, 1);
    float *at = begin(l, to, bytes);
    if (!l->failed)
        dequantize_row(from->type, from->data + dtype_row_bytes(from->type, first), n, at);
    end(l);
    done(l, bytes);
}

void load_vector(struct loading *l, float *to, const struct matrix *from) { load_part(l, to, from, 0, from->cols); }

void load_values(struct loading *l, float *to, const struct matrix *from, const int32_t *ids, int64_t n)
{
    if (!to || l->failed)
        return;
    loading_reads(l, from, 0, 1);
    float *at = begin(l, to, (size_t)n * sizeof *to);
    for (int64_t i = 0; !l->failed && i < n; i++)
        dequantize_row(from->type, from->data + dtype_row_bytes(from->type, ids[i]), 1, &at[i]);
    end(l);
}

void load_picked(struct loading *l, float *to, const struct neuron_set *set, const float *from, float otherwise,
                 const float *weight)
{
    if (!to || l->failed)
        return;
    float *at = begin(l, to, (size_t)set->n * sizeof *to);
    for (int64_t i = 0; !l->failed && i < set->n; i++)
        at[i] = (from ? from[set->ids[i]] : otherwise) * (weight ? weight[set->ids[i]] : 1);
    end(l);
}

void load_bytes(struct loading *l, uint8_t *to, const struct matrix *from, int64_t row, int64_t n)
{
    const size_t row_bytes = dtype_row_bytes(from->type, from->cols), bytes = (size_t)n * row_bytes;
    const uint8_t *src = from->data + (size_t)row * row_bytes;
    if (!to || l->failed)
        return;
    loading_reads(l, from, row, n);
    load_array(l, to, src, bytes);
    gguf_release_pages(l->o->model->file, src, bytes);
    done(l, bytes);
}

struct copy {
    uint8_t *to;
    const uint8_t *from;
    size_t bytes;
};

static void copy_some(void *arg, int64_t first, int64_t last, int thread)
{
    const struct copy *c = arg;
    const size_t at = (size_t)first * COPIED, to = (size_t)last * COPIED;
    (void)thread;
    memcpy(c->to + at, c->from + at, (to < c->bytes ? to : c->bytes) - at);
}

void load_array(struct loading *l, void *to, const void *from, size_t bytes)
{
    const size_t most = l->taking ? l->taking->most : bytes;
    for (size_t at = 0; at < bytes && !l->failed; at += most) {
        struct copy c = {.from = (const uint8_t *)from + at, .bytes = bytes - at < most ? bytes - at : most};
        c.to = begin(l, (uint8_t *)to + at, c.bytes);
        if (!l->failed)
            pool_for(l->o->pool, (int64_t)((c.bytes + COPIED - 1) / COPIED), 1, copy_some, &c);
        end(l);
    }
}
