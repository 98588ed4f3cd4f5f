/* Regular expressions as trees: of ECMA-262's, what is regular. */
#ifndef HEARTH_SAMPLING_SCHEMA_EXPRESSION_H
#define HEARTH_SAMPLING_SCHEMA_EXPRESSION_H

#include <stdint.h>
#include "base/status.h"
#include "sampling/schema/making.h"

enum node_kind {
    NODE_SET,      /* one character of spans */
    NODE_SEQUENCE, /* its children one after another */
    NODE_CHOICE,   /* one of its children */
    NODE_REPEAT,   /* its child from least to most times */
    NODE_BEGIN,    /* ^ */
    NODE_END       /* $ */
};

struct span {
    uint32_t lo, hi; /* characters */
};

struct node {
    uint8_t kind;
    uint32_t child, next;     /* the first one; the next one of who has this one. 0: none */
    uint32_t span, n_spans;   /* of a set: sorted, none touches another */
    uint64_t least, most;     /* of a repeat; ANY_COUNT: any number */
};

struct expression {
    struct node *nodes; /* [n_nodes] 0 is the root: a choice of sequences */
    struct span *spans; /* [n_spans] */
    uint32_t n_nodes, cap_nodes, n_spans, cap_spans;
};

/* The text is not needed afterwards. ST_USAGE (logged): it is no expression, or has what is not regular, by name;
 * ST_FULL: too large; ST_NOMEM. The caller frees it in any case. */
status expression_parse(struct expression *e, const char *text, const struct where *at);
void expression_free(struct expression *e);
/* ST_USAGE (logged) if it counts from where a text does not tell (window.c). */
status expression_check_counts(const struct expression *e, const struct where *at);

#endif
