#include "device/cpu/relayout.h"

#include <string.h>

#include "kernels/repack.h"

enum { FIRST_TOKENS = 4 }; /* that a layer has seen before their share of firing neurons counts */

static size_t up_bytes(const struct ffn_layer *s) { return (size_t)s->up_rows.rows * s->up_rows.top_bytes; }

size_t relayout_aside(const struct ffn_layer *s)
{
    const size_t up = s->has_gate ? up_bytes(s) : 0;
    const size_t down = !down_may_pack(&s->down) ? 0
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

static void relayout_up(struct cpu *c, struct ffn_layer *s, const struct matrix *from, uint8_t *aside)
{
    struct neuron_rows rows = s->up_rows;
    rows.top = memcpy(aside, rows.top, up_bytes(s));
    s->up = packed_over(s->up_rows.top, from, rows.rows, rows.cols);
    s->up_rows = (struct neuron_rows){0};
    pool_for(c->o.pool, s->up.groups, 16, repack_piece, &(struct repacking){.to = &s->up, .rows = &rows});
}

static void relayout_down(struct cpu *c, struct down *d, const struct matrix *from, uint8_t *aside)
{
    struct neuron_columns columns = d->columns;
    const size_t codes = neuron_columns_code_bytes(&columns), scales = neuron_columns_scale_bytes(&columns);
    columns.codes = memcpy(aside, columns.codes, codes);
    columns.scales = scales ? memcpy(aside + codes, columns.scales, scales) : NULL;
    d->matrix = packed_over(d->columns.codes, from, from->rows, d->set->n);
    d->columns = (struct neuron_columns){0};
    d->by_column = false;
    pool_for(c->o.pool, (columns.rows + COLUMN_TILE - 1) / COLUMN_TILE, 1, repack_piece,
             &(struct repacking){.to = &d->matrix, .columns = &columns});
}

void relayout(struct cpu *c, struct ffn_layer *s, uint8_t *aside)
{
    const uint64_t enough = (uint64_t)s->set.n * FIRST_TOKENS;
    if (s->decision != DECIDE_GATE || s->seen < enough || (double)s->fired <= (double)DENSE_FROM * (double)s->seen)
        return;
    if (s->has_gate)
        relayout_up(c, s, &s->of->up, aside);
    if (down_may_pack(&s->down))
        relayout_down(c, &s->down, &s->of->down, aside);
    s->decision = DECIDE_NOT;
}
