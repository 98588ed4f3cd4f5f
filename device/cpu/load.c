#include "device/cpu/load.h"

#include <string.h>

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

void load_slice(struct loading *l, struct packed *to, const struct matrix *from, int64_t row, int64_t col)
{
    size_t row_bytes = dtype_row_bytes(from->type, from->cols);
    if (!to->groups || !to->cols)
        return;
    struct slice s = {to, from, from->data + (size_t)row * row_bytes + dtype_row_bytes(from->type, col)};
    loading_reads(l, from, row, to->rows);
    pool_for(l->o->pool, to->groups, 16, fill_groups, &s);
    if (to->cols == from->cols)
        gguf_release_pages(l->o->model->file, s.src, (uint64_t)to->rows * row_bytes);
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

void load_part(struct loading *l, float *to, const struct matrix *from, int64_t first, int64_t n)
{
    if (!to)
        return;
    loading_reads(l, from, 0, 1);
    dequantize_row(from->type, from->data + dtype_row_bytes(from->type, first), n, to);
    loading_done(l, (uint64_t)n * sizeof *to);
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
    pool_for(l->o->pool, (int64_t)((c.bytes + COPIED - 1) / COPIED), 1, copy_piece, &c);
    gguf_release_pages(l->o->model->file, c.from, c.bytes);
    loading_done(l, c.bytes);
}
