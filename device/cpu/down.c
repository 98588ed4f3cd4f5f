#include "device/cpu/down.h"

struct project {
    struct cpu *c;
    const struct down *d;
    const struct acts *h;
    uint32_t n;
    double *sum; /* [n, d] */
};

static void project_groups(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct project *p = arg;
    (void)thread;
    p->c->o.kernels->matmul_partial(&p->d->matrix, begin, end, p->h, p->n, p->sum, p->d->matrix.rows);
}

static void project_columns(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct project *p = arg;
    const struct neuron_columns *c = &p->d->columns;
    const int64_t last = end * COLUMN_TILE < c->rows ? end * COLUMN_TILE : c->rows;
    (void)thread;
    p->c->o.kernels->mix_columns(c, begin * COLUMN_TILE, last, p->h, p->n, p->sum, c->rows);
}

/* How many slots of a block are live for any of n tokens, as the columns are read. */
static int live_slots(const struct acts *h, const struct neuron_columns *c, uint32_t n, int64_t block)
{
    const bool codes = dtype_is_quantised(c->type) && !c->transposed;
    uint8_t any[ACT_BLOCK] = {0};
    int live = 0;
    for (uint32_t t = 0; t < n; t++) {
        const int64_t first = t * h->cols + block * ACT_BLOCK;
        for (int i = 0; i < ACT_BLOCK; i++)
            any[i] |= codes ? (uint8_t)h->codes[first + i] : h->f32[first + i] != 0;
    }
    for (int i = 0; i < ACT_BLOCK; i++)
        live += any[i] != 0;
    return live;
}

/* Bytes of the columns and scales that live neurons make necessary. */
static uint64_t column_bytes(const struct acts *h, const struct neuron_columns *c, uint32_t n)
{
    uint64_t bytes = 0;
    for (int64_t b = 0; b < c->n_blocks; b++) {
        const int live = live_slots(h, c, n, b);
        bytes += (uint64_t)live * c->column_bytes + (live ? c->block_bytes : 0);
    }
    return bytes;
}

void down_project(struct cpu *c, const struct down *d, const struct acts *h, uint32_t n, double *sum)
{
    struct project p = {c, d, h, n, sum};
    if (!d->by_column) {
        pool_for(c->o.pool, d->matrix.groups, group_grain(c, d->matrix.groups), project_groups, &p);
        c->counts.bytes += packed_bytes(&d->matrix);
        return;
    }
    const int64_t tiles = (d->columns.rows + COLUMN_TILE - 1) / COLUMN_TILE;
    const int64_t grain = (tiles + c->o.n_threads - 1) / c->o.n_threads; /* long runs: a column is not read in order */
    pool_for(c->o.pool, tiles, grain, project_columns, &p);
    c->counts.bytes += column_bytes(h, &d->columns, n);
}
