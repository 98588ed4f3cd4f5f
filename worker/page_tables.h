/* Which page holds which positions of which sequence, as the coordinator says: one table of each sequence for all
 * stages and layers of a rank. Messages of a step bring its changes as often as they come (STEP or HIDDEN to a stage, a
 * REQUEST of every layer's attention to an owner); they are carried out once. Copies of pages are not of tables: each
 * layer makes its own. Pure logic, one thread.
 *
 * The coordinator promises that a table only grows while steps of its sequence are under way. So what a later step has
 * changed serves the earlier one too, which may still be asked for by stages further on. A rank sees each step first at
 * the same place as all others, and there steps come in their order. */
#ifndef HEARTH_WORKER_PAGE_TABLES_H
#define HEARTH_WORKER_PAGE_TABLES_H

#include "base/arena.h"
#include "wire/runs.h"

struct page_tables {
    uint32_t n_sequences, stride;
    uint32_t *pages;  /* [n_sequences, stride] the page of positions from entry * WIRE_PAGE on */
    uint32_t *length; /* [n_sequences] entries in use */
    uint64_t step;    /* the newest whose changes are in */
};

/* Takes its memory from an arena; a dry one counts it. All tables are empty. */
void page_tables_lay(struct page_tables *t, const struct wire_limits *lim, struct arena *a);
/* Carries a step's decoded changes out, unless that was done. ST_FORMAT (logged), and nothing is changed, if one would
 * leave a gap in a table. */
status page_tables_change(struct page_tables *t, uint64_t step, const struct wire_change *changes, uint32_t n);
/* ST_FORMAT (logged) if a decoded run has positions beyond the pages of its sequence. */
status page_tables_check(const struct page_tables *t, const struct wire_run *runs, uint32_t n);

#endif
