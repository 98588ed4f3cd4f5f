#include "coordinator/pages.h"

#include <stdlib.h>
#include "base/log.h"

struct pages {
    uint32_t n, n_free;
    uint32_t *free;   /* [n_free of n] a stack: the page that was dropped last is taken first */
    uint32_t *owners; /* [n] */
};

status pages_create(uint32_t n, struct pages **out)
{
    struct pages *p = calloc(1, sizeof *p);
    if (p) {
        *p = (struct pages){.n = n, .n_free = n};
        p->free = calloc(n, sizeof *p->free);
        p->owners = calloc(n, sizeof *p->owners);
    }
    if (!p || !p->free || !p->owners) {
        log_error("no memory for the list of %u KV pages", n);
        pages_free(p);
        return ST_NOMEM;
    }
    for (uint32_t i = 0; i < n; i++)
        p->free[i] = n - 1 - i;
    *out = p;
    return ST_OK;
}

void pages_free(struct pages *p)
{
    if (p) {
        free(p->free);
        free(p->owners);
    }
    free(p);
}

bool pages_take(struct pages *p, uint32_t *page)
{
    if (p->n_free == 0)
        return false;
    *page = p->free[--p->n_free];
    p->owners[*page] = 1;
    return true;
}

void pages_share(struct pages *p, uint32_t page) { p->owners[page]++; }

void pages_drop(struct pages *p, uint32_t page)
{
    if (--p->owners[page] == 0)
        p->free[p->n_free++] = page;
}

uint32_t pages_owners(const struct pages *p, uint32_t page) { return p->owners[page]; }

uint32_t pages_count(const struct pages *p) { return p->n; }

uint32_t pages_n_free(const struct pages *p) { return p->n_free; }
