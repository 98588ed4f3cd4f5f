#include "worker/tables.h"

#include <stdlib.h>

#include "base/log.h"

struct tables {
    uint32_t n_pages;   /* of a sequence, at most */
    uint32_t *pages;    /* [n_pages] */
    uint32_t *length;   /* [1 + n_layers] */
};

status tables_new(int n_layers, uint32_t n_ctx, struct tables **out)
{
    struct tables *t = calloc(1, sizeof *t);
    const uint32_t n_pages = (n_ctx + DEVICE_PAGE - 1) / DEVICE_PAGE;
    if (t) {
        t->n_pages = n_pages;
        t->pages = calloc(n_pages, sizeof *t->pages);
        t->length = calloc((size_t)n_layers + 1, sizeof *t->length);
    }
    if (!t || !t->pages || !t->length) {
        log_error("out of memory for the tables of pages");
        tables_free(t);
        return ST_NOMEM;
    }
    for (uint32_t i = 0; i < n_pages; i++)
        t->pages[i] = i;
    *out = t;
    return ST_OK;
}

void tables_free(struct tables *t)
{
    if (!t)
        return;
    free(t->pages);
    free(t->length);
    free(t);
}

struct batch tables_batch(struct tables *t, struct run *run)
{
    return (struct batch){.runs = run, .n_runs = 1, .n_tokens = run->n, .tables = t->pages, .table_stride = t->n_pages};
}

uint32_t tables_length(const struct tables *t, int layer) { return t->length[layer + 1]; }

void tables_ran(struct tables *t, int layer, const struct run *run) { t->length[layer + 1] = run->position + run->n; }
