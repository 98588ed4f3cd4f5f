/* A layer of which nearly all neurons fire is laid out anew, once, as a dense one.
 *
 * Single rows and columns are read and multiplied more slowly than packed matrices, so `exact` gains nothing where most
 * of them are needed. A neuron file says so before the layer is laid out; without one it shows at the first tokens. Both
 * layouts hold the same numbers and give the same bits, so no result tells when a layer has changed over, and every rank
 * decides for its own neurons alone.
 *
 * The packed form takes the place of the rows and columns: each was given the room of the larger form when the arena was
 * laid out (relay_reserve), so nothing is allocated here and memory stays what was computed beforehand. The numbers are
 * those in memory, which lie aside meanwhile (relay_aside): the file is not read again. */
#include <string.h>

#include "kernels/repack.h"
#include "worker/internal.h"

enum { FIRST_TOKENS = 4 }; /* that a layer has seen before their share of firing neurons counts */

void relay_reserve(struct worker *w, size_t begin, const struct matrix *m, int64_t rows, int64_t cols)
{
    struct packed p;
    packed_shape(&p, m->type, rows, cols);
    const size_t need = packed_bytes(&p), laid = w->arena.used - begin;
    if (need > laid)
        arena_alloc(&w->arena, need - laid); /* the arena's pieces follow each other */
}

void relay_count(const struct worker *w, struct shard *s, uint32_t n)
{
    if (s->decision != DECIDE_GATE)
        return;
    s->seen += (uint64_t)s->set.n * n;
    for (int t = 0; t < w->o.n_threads; t++)
        s->fired += w->live[t].counts.live;
}

bool relay_packs_down(const struct down *d)
{
    return d->set && d->set->whole && !d->columns.transposed;
}

static size_t up_bytes(const struct shard *s) { return (size_t)s->up_rows.rows * s->up_rows.top_bytes; }

size_t relay_aside(const struct shard *s)
{
    const size_t up = s->has_gate ? up_bytes(s) : 0;
    const size_t down = !relay_packs_down(&s->down) ? 0
                        : neuron_columns_code_bytes(&s->down.columns) + neuron_columns_scale_bytes(&s->down.columns);
    return s->decision != DECIDE_GATE ? 0 : up > down ? up : down;
}

/* The matrix over the place of its rows or columns, which begin at `data`. */
static struct packed packed_over(uint8_t *data, const struct matrix *from, int64_t rows, int64_t cols)
{
    struct packed p;
    packed_shape(&p, from->type, rows, cols);
    p.data = data;
    return p;
}

struct repacking {
    struct packed *to;
    const struct neuron_rows *rows;       /* either these */
    const struct neuron_columns *columns; /* or those */
};

static void repack_piece(void *arg, int64_t begin, int64_t end, int thread)
{
    struct repacking *r = arg;
    (void)thread;
    if (r->rows)
        repack_rows(r->to, begin, end, r->rows);
    else
        repack_columns(r->to, begin * COLUMN_TILE, end * COLUMN_TILE < r->to->rows ? end * COLUMN_TILE : r->to->rows,
                       r->columns);
}

static void relay_up(struct worker *w, struct shard *s, const struct matrix *from)
{
    struct neuron_rows rows = s->up_rows;
    rows.top = memcpy(w->aside, rows.top, up_bytes(s));
    s->up = packed_over(s->up_rows.top, from, rows.rows, rows.cols);
    s->up_rows = (struct neuron_rows){0};
    pool_for(w->pool, s->up.groups, 16, repack_piece, &(struct repacking){.to = &s->up, .rows = &rows});
}

static void relay_down(struct worker *w, struct down *d, const struct matrix *from)
{
    struct neuron_columns columns = d->columns;
    const size_t codes = neuron_columns_code_bytes(&columns), scales = neuron_columns_scale_bytes(&columns);
    columns.codes = memcpy(w->aside, columns.codes, codes);
    columns.scales = scales ? memcpy(w->aside + codes, columns.scales, scales) : NULL;
    d->matrix = packed_over(d->columns.codes, from, from->rows, d->set->n);
    d->columns = (struct neuron_columns){0};
    d->by_column = false;
    pool_for(w->pool, (columns.rows + COLUMN_TILE - 1) / COLUMN_TILE, 1, repack_piece,
             &(struct repacking){.to = &d->matrix, .columns = &columns});
}

void relay_shard(struct worker *w, int layer)
{
    struct shard *s = &w->shards[layer];
    const struct layer_weights *from = &w->o.model->layers[layer];
    const uint64_t enough = (uint64_t)s->set.n * FIRST_TOKENS;
    if (s->decision != DECIDE_GATE || s->seen < enough || (double)s->fired <= (double)DENSE_FROM * (double)s->seen)
        return;
    if (s->has_gate)
        relay_up(w, s, &from->up);
    if (relay_packs_down(&s->down))
        relay_down(w, &s->down, &from->down);
    s->decision = DECIDE_NOT;
}
