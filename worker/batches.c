#include "worker/batches.h"

#include <stdlib.h>

#include "base/log.h"
#include "worker/page_tables.h"
#include "worker/reached.h"

_Static_assert((int)DEVICE_PAGE == WIRE_PAGE, "pages are the same everywhere");

struct batches {
    struct rank *r;
    struct page_tables tables;
    struct reached reached;
    struct run *runs[DEVICE_USES];   /* [limits.n_runs] */
};

status batches_new(struct rank *r, struct batches **out)
{
    struct batches *b = calloc(1, sizeof *b);
    if (!b) {
        log_error("out of memory for the tables of pages");
        return ST_NOMEM;
    }
    b->r = r;
    *out = b;
    return ST_OK;
}

void batches_free(struct batches *b) { free(b); }

void batches_lay(struct batches *b)
{
    struct rank *r = b->r;
    page_tables_lay(&b->tables, &r->limits, &r->arena);
    reached_lay(&b->reached, &r->limits, &r->arena);
    for (int i = 0; i < DEVICE_USES; i++)
        b->runs[i] = arena_alloc(&r->arena, r->limits.n_runs * sizeof *b->runs[i]);
}

status batches_take(struct batches *b, enum device_use use, const struct wire_step *s, struct batch *out)
{
    struct run *runs = b->runs[use];
    status st = page_tables_change(&b->tables, s->id, s->changes, s->n_changes);
    st = st ? st : page_tables_check(&b->tables, s->runs, s->n_runs);
    st = st ? st : reached_run(&b->reached, s->id, s->runs, s->n_runs);
    if (st)
        return st;
    for (uint32_t i = 0; i < s->n_runs; i++)
        runs[i] = (struct run){s->runs[i].sequence, s->runs[i].position, s->runs[i].n_tokens, s->runs[i].begin_with,
                               s->runs[i].keep_as};
    *out = (struct batch){.runs = runs, .n_runs = s->n_runs, .n_tokens = s->n_tokens, .tables = b->tables.pages,
                          .table_stride = b->tables.stride};
    return ST_OK;
}
