/* A string that grows. */
#ifndef HEARTH_BASE_TEXT_H
#define HEARTH_BASE_TEXT_H

#include <stddef.h>
#include "base/status.h"

/* Zero is an empty one; NUL-terminated once it was appended to. */
struct text {
    char *at; /* malloc'ed, caller frees */
    size_t n, cap;
};

/* ST_NOMEM (logged) leaves it as it was. */
status text_append(struct text *t, const char *bytes, size_t n);
/* Takes the first n bytes away. */
void text_drop(struct text *t, size_t n);

#endif
