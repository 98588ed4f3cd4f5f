#include "device/cuda/down.h"

#include <stdlib.h>

#include "base/log.h"
#include "kernels/column_layout.h"
#include "kernels/cuda/products.h"

void cuda_down_lay(struct cuda *c, int layer, const struct held *held, bool dense, struct down *d)
{
    const struct layer_weights *f = &c->o.model->layers[layer];
    const struct neuron_set *set = &held->set;
    const bool transposed = f->down_t.data != NULL;
    const struct matrix *from = transposed ? &f->down_t : &f->down;
    *d = (struct down){.held = held, .by_column = !dense || !set->whole || transposed};
    if (!d->by_column) {
        lay_matrix(&c->arena, &d->matrix, from, from->rows, set->n);
        return;
    }
    struct neuron_columns *m = &d->columns;
    neuron_columns_shape(m, from->type, transposed, c->hp->d_model, set->n, set->n_blocks);
    m->block = held->block;
    m->column = held->column;
    m->codes = arena_alloc(&c->arena, neuron_columns_code_bytes(m));
    m->scales = arena_alloc(&c->arena, neuron_columns_scale_bytes(m));
    d->ranges = arena_alloc(&c->arena, (size_t)set->n_blocks * sizeof *d->ranges); /* the most that there can be */
}

/* The segments that the blocks form. */
static void load_ranges(struct loader *l, struct down *d)
{
    struct neuron_columns m = d->columns;
    m.block = d->held->set.block;
    struct gpu_range *ranges = calloc((size_t)m.n_blocks, sizeof *ranges);
    if (!ranges) {
        log_error("out of memory for the tables of neurons");
        l->failed = ST_NOMEM;
        return;
    }
    d->n_ranges = 0;
    for (struct column_range r = {.super = -1}; next_range(&m, &r);)
        ranges[d->n_ranges++] = (struct gpu_range){(int32_t)r.begin, (int32_t)r.end, (int32_t)r.super};
    cuda_load_array(l, d->ranges, ranges, (size_t)d->n_ranges * sizeof *ranges);
    free(ranges);
}

void cuda_down_load(struct loader *l, struct down *d, int layer)
{
    const struct layer_weights *from = &l->c->o.model->layers[layer];
    if (l->failed || !d->held || !d->held->set.n)
        return;
    if (!d->by_column) {
        cuda_load_packed(l, &d->matrix, &from->down, 0, d->held->set.ids[0], NULL);
        return;
    }
    cuda_load_columns(l, &d->columns, d->columns.transposed ? &from->down_t : &from->down, &d->held->set);
    load_ranges(l, d);
}

void cuda_down_project(struct cuda *c, const struct down *d, const struct acts *h, uint32_t n,
                       const struct gpu_sums *sums, bool add)
{
    if (d->by_column) {
        gpu_mix_columns(&c->gpu, &d->columns, d->ranges, d->n_ranges, h, n, sums, add);
        return;
    }
    gpu_matmul_partial(&c->gpu, &d->matrix, h, n, sums, add);
}
