#include "worker/page_tables.h"

#include <string.h>

#include "base/log.h"

void page_tables_lay(struct page_tables *t, const struct wire_limits *lim, struct arena *a)
{
    *t = (struct page_tables){.n_sequences = lim->n_sequences, .stride = wire_table(lim)};
    t->pages = arena_alloc(a, (size_t)t->n_sequences * t->stride * sizeof *t->pages);
    t->length = arena_alloc(a, t->n_sequences * sizeof *t->length);
}

/* Whether every change is of an entry that is there or the next. */
static status check_changes(const struct page_tables *t, const struct wire_change *changes, uint32_t n)
{
    uint32_t length[WIRE_SEQUENCES];
    memcpy(length, t->length, t->n_sequences * sizeof *length);
    for (uint32_t i = 0; i < n; i++) {
        const struct wire_change *c = &changes[i];
        if (c->index > length[c->sequence]) {
            log_error("page %u for entry %u of the table of sequence %u, expected at most entry %u", c->page, c->index,
                      c->sequence, length[c->sequence]);
            return ST_FORMAT;
        }
        length[c->sequence] = c->index + 1;
    }
    return ST_OK;
}

status page_tables_change(struct page_tables *t, uint64_t step, const struct wire_change *changes, uint32_t n)
{
    if (step <= t->step)
        return ST_OK;
    status st = check_changes(t, changes, n);
    if (st != ST_OK)
        return st;
    for (uint32_t i = 0; i < n; i++) {
        t->pages[changes[i].sequence * t->stride + changes[i].index] = changes[i].page;
        t->length[changes[i].sequence] = changes[i].index + 1;
    }
    t->step = step;
    return ST_OK;
}

status page_tables_check(const struct page_tables *t, const struct wire_run *runs, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        const uint64_t end = (uint64_t)runs[i].position + runs[i].n_tokens;
        const uint64_t covered = (uint64_t)t->length[runs[i].sequence] * WIRE_PAGE;
        if (end > covered) {
            log_error("a run of sequence %u to position %llu, expected at most %llu: its table has %u pages",
                      runs[i].sequence, (unsigned long long)end, (unsigned long long)covered,
                      t->length[runs[i].sequence]);
            return ST_FORMAT;
        }
    }
    return ST_OK;
}
