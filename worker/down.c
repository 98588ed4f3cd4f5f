/* The down projection of a set of neurons: all of a packed matrix, or only the columns of live neurons. The same bits
 * (kernels/columns.h). */
#include "worker/internal.h"

struct project {
    struct worker *w;
    const struct down *d;
    uint32_t n;
    double *sum; /* [n, d] */
};

static void project_groups(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct project *p = arg;
    (void)thread;
    p->w->o.kernels->matmul_partial(&p->d->matrix, begin, end, &p->w->activated, p->n, p->sum, p->d->matrix.rows);
}

static void project_columns(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct project *p = arg;
    const struct neuron_columns *c = &p->d->columns;
    const int64_t last = end * COLUMN_TILE < c->rows ? end * COLUMN_TILE : c->rows;
    (void)thread;
    p->w->o.kernels->mix_columns(c, begin * COLUMN_TILE, last, &p->w->activated, p->n, p->sum, c->rows);
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

void down_project(struct worker *w, const struct down *d, uint32_t n, double *sum)
{
    struct project p = {w, d, n, sum};
    if (!d->by_column) {
        pool_for(w->pool, d->matrix.groups, group_grain(w, d->matrix.groups), project_groups, &p);
        w->counts.bytes += packed_bytes(&d->matrix);
        return;
    }
    const int64_t tiles = (d->columns.rows + COLUMN_TILE - 1) / COLUMN_TILE;
    const int64_t grain = (tiles + w->o.n_threads - 1) / w->o.n_threads; /* long runs: a column is not read in order */
    pool_for(w->pool, tiles, grain, project_columns, &p);
    w->counts.bytes += column_bytes(&w->activated, &d->columns, n);
}

struct wire_counts take_counts(struct worker *w)
{
    struct wire_counts sum = w->counts;
    w->counts = (struct wire_counts){0};
    for (int t = 0; t < w->o.n_threads; t++) {
        wire_counts_add(&sum, &w->live[t].counts);
        w->live[t].counts = (struct wire_counts){0};
    }
    return sum;
}
