/* A layer of which nearly all neurons fire is laid out anew, once, as a dense one.
 *
 * Single rows and columns are read and multiplied more slowly than packed matrices, so `exact` gains nothing where most
 * of them are needed. A neuron file says so before the layer is laid out; without one it shows at the first tokens. Both
 * layouts hold the same numbers and give the same bits, so no result tells when a layer has changed over, and every rank
 * decides for its own neurons alone.
 *
 * The packed form takes the place of the rows and columns: each was given the room of the larger form when the arena was
 * laid out (relay_reserve), so nothing is allocated here and memory stays what was computed beforehand. */
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

/* The matrix over the place of its rows or columns, which begin at `data`. */
static struct packed packed_over(uint8_t *data, const struct matrix *from, int64_t rows, int64_t cols)
{
    struct packed p;
    packed_shape(&p, from->type, rows, cols);
    p.data = data;
    return p;
}

void relay_shard(struct worker *w, int layer)
{
    struct shard *s = &w->shards[layer];
    const struct layer_weights *from = &w->o.model->layers[layer];
    const uint64_t enough = (uint64_t)s->set.n * FIRST_TOKENS;
    if (s->decision != DECIDE_GATE || s->seen < enough || (double)s->fired <= (double)DENSE_FROM * (double)s->seen)
        return;
    struct loading quiet = {.w = w, .total = UINT64_MAX}; /* never so far that it would be shown */
    if (s->has_gate) {
        s->up = packed_over(s->up_rows.top, &from->up, s->set.n, from->up.cols);
        s->up_rows = (struct neuron_rows){0};
        load_packed(&quiet, &s->up, &from->up, s->set.ids);
    }
    if (relay_packs_down(&s->down)) {
        s->down.matrix = packed_over(s->down.columns.codes, &from->down, from->down.rows, s->set.n);
        s->down.columns = (struct neuron_columns){0};
        s->down.by_column = false;
        load_slice(&quiet, &s->down.matrix, &from->down, 0, s->set.ids[0]);
    }
    s->decision = DECIDE_NOT;
}
