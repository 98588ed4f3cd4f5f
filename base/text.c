#include "base/text.h"

#include <stdlib.h>
#include <string.h>
#include "base/log.h"

status text_append(struct text *t, const char *bytes, size_t n)
{
    if (t->cap - t->n < n + 1) {
        size_t cap = 2 * t->cap + n + 1;
        char *at = realloc(t->at, cap);
        if (!at) {
            log_error("no memory for a text of %zu bytes", cap);
            return ST_NOMEM;
        }
        t->at = at;
        t->cap = cap;
    }
    if (n)
        memcpy(t->at + t->n, bytes, n);
    t->n += n;
    t->at[t->n] = '\0';
    return ST_OK;
}

void text_drop(struct text *t, size_t n)
{
    if (!n)
        return;
    t->n -= n;
    memmove(t->at, t->at + n, t->n + 1);
}
