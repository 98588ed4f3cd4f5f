/* Counts whose beginning is anybody's guess. In ".*[aeiou].{900}" each vowel may be the one from which 900 characters
 * are counted, so where a text is are all the vowels of its last 900: another state for nearly every text, none of
 * which can be looked up. Such an expression is refused; one whose count begins at a character that the run before it
 * cannot hold ("[^@]+@[a-z]{2,63}") is fine. */
#include "sampling/schema/expression.h"

enum { FEW = 8 }; /* beginnings, or characters, that are few enough */

/* What has been read so far. */
struct before {
    bool varies;            /* its length may be one of many */
    const struct node *run; /* the node that made it vary; NULL: any characters */
};

/* The set that a node is, or repeats; NULL: it is more than that. */
static const struct node *set_of(const struct expression *e, const struct node *n)
{
    if (n->kind == NODE_REPEAT)
        n = &e->nodes[n->child];
    if (n->kind == NODE_CHOICE && n->child && !e->nodes[n->child].next)
        n = &e->nodes[n->child];
    if (n->kind == NODE_SEQUENCE && n->child && !e->nodes[n->child].next)
        n = &e->nodes[n->child];
    return n->kind == NODE_SET ? n : NULL;
}

static bool are_disjoint(const struct expression *e, const struct node *a, const struct node *b)
{
    const struct node *of_a = a ? set_of(e, a) : NULL, *of_b = set_of(e, b);
    if (!of_a || !of_b)
        return false;
    for (uint32_t i = 0; i < of_a->n_spans; i++)
        for (uint32_t j = 0; j < of_b->n_spans; j++) {
            const struct span *x = &e->spans[of_a->span + i], *y = &e->spans[of_b->span + j];
            if (x->lo <= y->hi && y->lo <= x->hi)
                return false;
        }
    return true;
}

static bool is_fine(const struct expression *e, uint32_t at, struct before *b);

static bool is_repeat_fine(const struct expression *e, const struct node *n, struct before *b)
{
    const bool counts = n->least > FEW || (n->most > FEW && n->most != ANY_COUNT);
    struct before within = *b;
    if (counts && b->varies)
        return false;
    if (!is_fine(e, n->child, &within))
        return false;
    b->varies |= within.varies;
    b->run = within.varies ? within.run : b->run;
    if (n->most - n->least > FEW)
        *b = (struct before){true, n};
    return true;
}

/* Whether it has no such count, behind what was before it. */
static bool is_fine(const struct expression *e, uint32_t at, struct before *b)
{
    const struct node *n = &e->nodes[at];
    const struct before start = *b;
    if (b->varies && (n->kind == NODE_SET || n->kind == NODE_REPEAT) && are_disjoint(e, b->run, n))
        b->varies = false;
    if (n->kind == NODE_REPEAT)
        return is_repeat_fine(e, n, b);
    for (uint32_t i = n->child; i; i = e->nodes[i].next) {
        struct before way = start;
        if (!is_fine(e, i, n->kind == NODE_CHOICE ? &way : b))
            return false;
        if (n->kind == NODE_CHOICE && way.varies)
            *b = way;
    }
    return true;
}

status expression_check_counts(const struct expression *e, const struct where *at)
{
    for (uint32_t i = e->nodes[0].child; i; i = e->nodes[i].next) {
        const uint32_t first = e->nodes[i].child;
        struct before b = {!(first && e->nodes[first].kind == NODE_BEGIN), NULL};
        if (!is_fine(e, i, &b))
            return schema_refuse(at, ST_USAGE, "pattern: a count of more than %d is not supported where it may begin "
                                 "anywhere: behind .* and the like, or without ^", FEW);
    }
    return ST_OK;
}
