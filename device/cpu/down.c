#include "device/cpu/down.h"

#include <string.h>

enum { ADDED_TOKENS = 32 }; /* of a share whose part is added, at a time */

struct project {
    struct cpu *c;
    const struct down_room *room;
    const struct share *shares;
    int n_shares;
    uint32_t n;
    enum down_sums sums;
    int64_t unit; /* rows that belong together */
    double *sum;  /* [n, d] */
};

void down_room_lay(struct cpu *c, struct down_room *r)
{
    r->place = arena_alloc(&c->arena, (size_t)(c->o.n_threads * ADDED_TOKENS * c->hp->d_model) * sizeof *r->place);
}

/* y[n, d] = the part of tokens [first, first + n) of a share, rows [begin, end). */
static void project_part(const struct project *p, const struct share *of, uint32_t first, uint32_t n, int64_t begin,
                         int64_t end, double *y)
{
    const struct kernels *k = p->c->o.kernels;
    const struct acts h = acts_slice(&of->h, first, 0, of->h.cols);
    const int64_t d = p->c->hp->d_model;
    if (of->down->by_column)
        k->mix_columns(&of->down->columns, begin, end, &h, n, y, d);
    else
        k->matmul_partial(&of->down->matrix, begin / ROW_GROUP, (end + ROW_GROUP - 1) / ROW_GROUP, &h, n, y, d);
}

static void add_part(const struct project *p, const struct share *of, int64_t begin, int64_t end, double *place)
{
    const int64_t d = p->c->hp->d_model;
    for (uint32_t first = 0; first < of->n; first += ADDED_TOKENS) {
        const uint32_t n = of->n - first < ADDED_TOKENS ? of->n - first : ADDED_TOKENS;
        project_part(p, of, first, n, begin, end, place);
        for (uint32_t t = 0; t < n; t++) {
            double *to = p->sum + (of->n == p->n ? first + t : of->token[first + t]) * d;
            for (int64_t i = begin; i < end; i++)
                to[i] += place[t * d + i];
        }
    }
}

/* All parts of some rows: the first is written if it has all tokens, the others are added. Adding is exact, so their
 * order is no matter. */
static void project_rows(void *arg, int64_t first, int64_t last, int thread)
{
    const struct project *p = arg;
    const int64_t d = p->c->hp->d_model, begin = first * p->unit, end = last * p->unit < d ? last * p->unit : d;
    const bool writes = p->sums == DOWN_BEGINS && p->n_shares && p->shares->n == p->n;
    if (writes)
        project_part(p, p->shares, 0, p->n, begin, end, p->sum);
    for (uint32_t t = 0; p->sums == DOWN_BEGINS && !writes && t < p->n; t++)
        memset(p->sum + t * d + begin, 0, (size_t)(end - begin) * sizeof *p->sum);
    for (int i = writes; i < p->n_shares; i++)
        add_part(p, &p->shares[i], begin, end, p->room->place + thread * ADDED_TOKENS * d);
}

/* ---- counting ---- */

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

static uint64_t bytes_of(const struct share *of)
{
    const struct down *d = of->down;
    return d->by_column ? column_bytes(&of->h, &d->columns, of->n) : packed_bytes(&d->matrix);
}

/* ---- the whole ---- */

void down_project(struct cpu *c, const struct down_room *r, const struct share *shares, int n_shares, uint32_t n,
                  enum down_sums sums, double *sum)
{
    struct project p = {c, r, shares, n_shares, n, sums, ROW_GROUP, sum};
    for (int i = 0; i < n_shares; i++) {
        p.unit = shares[i].down->by_column ? COLUMN_TILE : p.unit;
        c->counts.bytes += bytes_of(&shares[i]);
    }
    const int64_t units = (c->hp->d_model + p.unit - 1) / p.unit;
    const int64_t evenly = (units + c->o.n_threads - 1) / c->o.n_threads;
    const bool runs = p.unit == COLUMN_TILE || (n_shares > 1 && n <= FEW_TOKENS); /* a column is not read in order */
    pool_for(c->o.pool, units, runs ? evenly : group_grain(c, units, n), project_rows, &p);
}
