/* Stop strings in a text that comes in pieces: what may become one is held back. One thread at a time. */
#ifndef HEARTH_SERVE_STOPS_H
#define HEARTH_SERVE_STOPS_H

#include <stdbool.h>
#include <stddef.h>
#include "base/status.h"
#include "base/text.h"

struct stops {
    char **list;      /* [n] */
    size_t n;
    struct text held; /* the beginning of one, perhaps */
    const char *came; /* the one that came: nothing is text any more; NULL: none */
};

/* n bytes of text, 1 or more. */
typedef status stops_fn(void *arg, const char *at, size_t n);

/* Copies strings [n], none empty. ST_NOMEM (logged); stops_free either way. */
status stops_init(struct stops *s, const char *const *list, size_t n);
/* Takes n bytes and tells what is text for sure. Of two stop strings the one counts that ends first, of those that end
 * together the longest. ST_NOMEM; what tell returns. */
status stops_take(struct stops *s, const char *at, size_t n, stops_fn *tell, void *arg);
/* What is held is text. */
status stops_end(struct stops *s, stops_fn *tell, void *arg);
void stops_free(struct stops *s);

#endif
