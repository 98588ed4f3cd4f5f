#include "device/cuda/down.h"

#include <stdlib.h>

#include "base/log.h"
#include "device/readers.h"
#include "kernels/column_layout.h"
#include "kernels/cuda/products.h"

void cuda_ranges_lay(struct cuda *c, const struct down *d, struct ranges *r)
{
    if (d->by_column) /* the most that there can be */
        r->range = arena_alloc(&c->arena, (size_t)d->columns.n_blocks * sizeof *r->range);
}

void cuda_ranges_load(struct loading *l, const struct down *d, struct ranges *r)
{
    if (l->failed || !d->by_column || !d->set->n)
        return;
    struct neuron_columns m = d->columns;
    m.block = d->set->block;
    struct gpu_range *ranges = calloc((size_t)m.n_blocks, sizeof *ranges);
    if (!ranges) {
        log_error("out of memory for the tables of neurons");
        l->failed = ST_NOMEM;
        return;
    }
    r->n = 0;
    for (struct column_range of = {.super = -1}; next_range(&m, &of);)
        ranges[r->n++] = (struct gpu_range){(int32_t)of.begin, (int32_t)of.end, (int32_t)of.super};
    load_array(l, r->range, ranges, (size_t)r->n * sizeof *ranges);
    free(ranges);
}

bool cuda_down_reads_codes(const struct cuda *c, const struct down *d, int layer)
{
    return d->set && !d->by_column && readers_of(&c->o, ACTIVATED, layer).q8;
}

void cuda_down_project(struct cuda *c, const struct down *d, const struct ranges *r, const struct acts *h, uint32_t n,
                       const struct gpu_sums *sums, bool add)
{
    if (d->by_column)
        gpu_mix_columns(&c->gpu, &d->columns, r->range, r->n, h, n, sums);
    else
        gpu_matmul_partial(&c->gpu, &d->matrix, h, n, sums, add);
}
