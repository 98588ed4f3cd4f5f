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

/* Whether any token of a slot is live, as the columns are read. */
static bool slot_live(const struct acts *h, const struct neuron_columns *c, uint32_t n, int64_t slot)
{
    const bool codes = dtype_is_quantised(c->type) && !c->transposed;
    for (uint32_t t = 0; t < n; t++)
        if (codes ? h->codes[t * h->cols + slot] != 0 : h->f32[t * h->cols + slot] != 0)
            return true;
    return false;
}

/* Bytes of the columns and scales that live neurons make necessary. */
static uint64_t column_bytes(const struct acts *h, const struct neuron_columns *c, uint32_t n)
{
    uint64_t bytes = 0;
    for (int64_t b = 0; b < c->n_blocks; b++) {
        int live = 0;
        for (int64_t slot = b * ACT_BLOCK; slot < (b + 1) * ACT_BLOCK; slot++)
            live += slot_live(h, c, n, slot);
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

void add_counts(struct wire_counts *sum, const struct wire_counts *more)
{
    sum->bytes += more->bytes;
    sum->neurons += more->neurons;
    sum->flagged += more->flagged;
    sum->live += more->live;
}

struct wire_counts take_counts(struct worker *w)
{
    struct wire_counts sum = w->counts;
    w->counts = (struct wire_counts){0};
    for (int t = 0; t < w->o.n_threads; t++) {
        add_counts(&sum, &w->live[t].counts);
        w->live[t].counts = (struct wire_counts){0};
    }
    return sum;
}
