#include "device/cpu/fill.h"

struct filling {
    const struct matrix *from;
    const int32_t *ids;
    struct packed *packed;
    struct neuron_rows *rows;
    struct neuron_columns *columns;
};

static void fill_piece(void *arg, int64_t begin, int64_t end, int thread)
{
    struct filling *f = arg;
    const size_t stride = dtype_row_bytes(f->from->type, f->from->cols);
    (void)thread;
    if (f->packed)
        packed_fill(f->packed, begin, end, f->from->data, stride, f->ids);
    else if (f->rows)
        neuron_rows_fill(f->rows, begin, end, f->from->data, stride, f->ids);
    else {
        const int64_t last = end * COLUMN_TILE;
        neuron_columns_fill(f->columns, begin * COLUMN_TILE, last < f->columns->rows ? last : f->columns->rows,
                            f->from->data, stride);
    }
}

void fill_packed(struct loading *l, struct packed *to, const struct matrix *from, const int32_t *ids)
{
    struct filling f = {.from = from, .ids = ids, .packed = to};
    if (!to->groups)
        return;
    loading_reads_neurons(l, from, ids, to->rows);
    pool_for(l->o->pool, to->groups, 16, fill_piece, &f);
    loading_done(l, packed_bytes(to));
}

void fill_rows(struct loading *l, struct neuron_rows *to, const struct matrix *from, const int32_t *ids)
{
    struct filling f = {.from = from, .ids = ids, .rows = to};
    if (!to->rows)
        return;
    loading_reads_neurons(l, from, ids, to->rows);
    pool_for(l->o->pool, to->rows, 64, fill_piece, &f);
    loading_done(l, (uint64_t)to->rows * (to->top_bytes + to->rest_bytes));
}

void fill_columns(struct loading *l, struct neuron_columns *to, const struct matrix *from, const int32_t *ids)
{
    struct filling f = {.from = from, .columns = to};
    if (to->transposed)
        loading_reads_neurons(l, from, ids, to->n_columns);
    else
        loading_reads(l, from, 0, from->rows);
    pool_for(l->o->pool, (to->rows + COLUMN_TILE - 1) / COLUMN_TILE, 1, fill_piece, &f);
    loading_done(l, neuron_columns_code_bytes(to) + neuron_columns_scale_bytes(to));
}
