/* The strings in which an expression finds something. Controls for which JSON has no short escape are in none of
 * them. */
#include <string.h>

#include "sampling/schema/expression.h"
#include "sampling/schema/making.h"

struct pattern {
    struct making *k;
    struct expression e;
    const struct where *at;
};

/* --- how long --- */

struct lengths {
    uint64_t least, most;
};

static uint64_t add(uint64_t a, uint64_t b) { return a == ANY_COUNT || b == ANY_COUNT ? ANY_COUNT : a + b; }

/* As far as 64 bits hold it: counts are at most MOST_COUNT, and what is beyond its square is as good as any. */
static uint64_t multiply(uint64_t a, uint64_t b)
{
    const uint64_t high = (uint64_t)MOST_COUNT * MOST_COUNT;
    if (a == 0 || b == 0)
        return 0;
    return a > high || b > high || a > high / b ? ANY_COUNT : a * b;
}

static struct lengths lengths_of(const struct expression *e, uint32_t at)
{
    const struct node *n = &e->nodes[at];
    struct lengths all = {0, 0};
    bool first = true;
    if (n->kind == NODE_SET)
        return (struct lengths){1, 1};
    if (n->kind == NODE_REPEAT) {
        const struct lengths one = lengths_of(e, n->child);
        return (struct lengths){multiply(one.least, n->least), multiply(one.most, n->most)};
    }
    for (uint32_t i = n->child; i; i = e->nodes[i].next, first = false) {
        const struct lengths one = lengths_of(e, i);
        if (n->kind == NODE_SEQUENCE)
            all = (struct lengths){add(all.least, one.least), add(all.most, one.most)};
        else
            all = (struct lengths){first || one.least < all.least ? one.least : all.least,
                                   one.most > all.most ? one.most : all.most};
    }
    return all;
}

/* --- ops --- */

static void make_raw(struct grammar_maker *m, struct ways *w, uint32_t lo, uint32_t hi)
{
    if (lo > hi)
        return;
    ways_next(m, w);
    grammar_characters(m, lo, hi);
}

/* What a string holds as it is goes between what must be escaped. */
static void make_span(struct grammar_maker *m, struct ways *w, uint32_t lo, uint32_t hi)
{
    for (uint32_t c = lo; c <= hi && c <= '\\'; c++) {
        if (is_plain(c))
            continue;
        if (lo < c)
            make_raw(m, w, lo, c - 1);
        lo = c + 1;
        if (*escape_of(c)) {
            ways_next(m, w);
            grammar_text(m, escape_of(c), 2);
        }
    }
    make_raw(m, w, lo, hi);
}

static void make_set(struct pattern *p, const struct node *n)
{
    const struct span *spans = p->e.spans + n->span;
    struct ways w;
    if (n->n_spans == 1 && spans->lo == spans->hi && is_plain(spans->lo)) {
        grammar_characters(p->k->m, spans->lo, spans->lo);
        return;
    }
    ways_begin(p->k->m, &w);
    for (uint32_t i = 0; i < n->n_spans; i++)
        make_span(p->k->m, &w, spans[i].lo, spans[i].hi);
    ways_end(p->k->m, &w);
}

static status make_node(struct pattern *p, uint32_t at);

static status make_counted(struct pattern *p, const struct node *n)
{
    const struct aside a = aside_begin(p->k->m);
    status st = make_node(p, n->child);
    repeat(p->k->m, aside_end(p->k->m, &a), n->least, n->most, NULL);
    return st;
}

static status make_repeat(struct pattern *p, const struct node *n)
{
    struct grammar_maker *m = p->k->m;
    status st = ST_OK;
    uint32_t again;
    if (n->most == ANY_COUNT && lengths_of(&p->e, n->child).least == 0)
        return schema_refuse(p->at, ST_USAGE, "pattern: any number of what may be empty is not supported");
    if (n->least > 1 || (n->most > 1 && n->most != ANY_COUNT))
        return make_counted(p, n);
    if (n->most == 0)
        return ST_OK;
    if (n->least == 1) {
        again = grammar_here(m);
        st = make_node(p, n->child);
        if (n->most == ANY_COUNT)
            grammar_split(m, again, grammar_here(m) + 1);
        return st;
    }
    again = maybe(m);
    st = make_node(p, n->child);
    if (n->most == ANY_COUNT)
        grammar_jump(m, again);
    grammar_patch(m, again, grammar_here(m));
    return st;
}

static status make_choice(struct pattern *p, const struct node *n)
{
    struct ways w;
    status st = ST_OK;
    ways_begin(p->k->m, &w);
    for (uint32_t i = n->child; i && st == ST_OK; i = p->e.nodes[i].next) {
        ways_next(p->k->m, &w);
        st = make_node(p, i);
    }
    ways_end(p->k->m, &w);
    return st;
}

static status make_node(struct pattern *p, uint32_t at)
{
    const struct node *n = &p->e.nodes[at];
    status st = p->k->m->st;
    switch (n->kind) {
    case NODE_SET: make_set(p, n); break;
    case NODE_REPEAT: return make_repeat(p, n);
    case NODE_CHOICE:
        if (!p->e.nodes[n->child].next)
            return make_node(p, n->child);
        return make_choice(p, n);
    case NODE_SEQUENCE:
        for (uint32_t i = n->child; i && st == ST_OK; i = p->e.nodes[i].next)
            st = make_node(p, i);
        return st;
    default: return schema_refuse(p->at, ST_USAGE, "pattern: ^ and $ are supported at its ends only");
    }
    return p->k->m->st;
}

/* --- the whole string --- */

/* One of the expression's choices: what it holds, without its anchors. */
struct branch {
    uint32_t first, end; /* nodes, until `end` or none */
    bool begins, ends;   /* with ^, with $ */
};

static struct branch branch_of(const struct expression *e, uint32_t sequence)
{
    struct branch b = {.first = e->nodes[sequence].child};
    if (b.first && e->nodes[b.first].kind == NODE_BEGIN) {
        b.begins = true;
        b.first = e->nodes[b.first].next;
    }
    for (uint32_t i = b.first; i; i = e->nodes[i].next)
        if (e->nodes[i].kind == NODE_END && !e->nodes[i].next) {
            b.ends = true;
            b.end = i;
        }
    return b;
}

/* Makes the lengths of a branch those that are asked for, where one repeat of single characters decides. */
static status cut_to(struct pattern *p, const struct branch *b, uint64_t least, uint64_t most)
{
    struct lengths all = {0, b->begins && b->ends ? 0 : ANY_COUNT}, one = {0, 0};
    uint32_t varies = 0, n_vary = 0;
    for (uint32_t i = b->first; i != b->end; i = p->e.nodes[i].next) {
        const struct lengths l = lengths_of(&p->e, i);
        all = (struct lengths){add(all.least, l.least), add(all.most, l.most)};
        if (l.least == l.most)
            continue;
        n_vary++;
        varies = i;
        one = l;
    }
    if (all.least > MOST_COUNT)
        return schema_refuse(p->at, ST_FULL, "pattern: its shortest string has more than %d characters", MOST_COUNT);
    if (all.least >= least && all.most <= most)
        return ST_OK;
    struct node *n = &p->e.nodes[varies];
    const struct lengths child = n->kind == NODE_REPEAT ? lengths_of(&p->e, n->child) : (struct lengths){0, 0};
    if (!b->begins || !b->ends || n_vary != 1 || child.least != 1 || child.most != 1)
        return schema_refuse(p->at, ST_USAGE,
                             "pattern or format: minLength or maxLength beside it is not supported here");
    const uint64_t others = all.least - one.least;
    const uint64_t up_to = most == ANY_COUNT ? n->most : most < others ? 0 : most - others;
    n->least = least > others && least - others > n->least ? least - others : n->least;
    n->most = up_to < n->most ? up_to : n->most;
    return ST_OK;
}

static bool is_empty(const struct pattern *p, const struct branch *b, uint64_t most)
{
    uint64_t least = 0;
    for (uint32_t i = b->first; i != b->end; i = p->e.nodes[i].next) {
        const struct node *n = &p->e.nodes[i];
        if (n->kind == NODE_REPEAT && n->least > n->most)
            return true;
        least = add(least, lengths_of(&p->e, i).least);
    }
    return least > most;
}

static status make_branch(struct pattern *p, const struct branch *b)
{
    const uint32_t any = b->begins && b->ends ? NOWHERE : json_part(p->k, PART_CHARACTER);
    status st = ST_OK;
    if (!b->begins)
        repeat(p->k->m, any, 0, ANY_COUNT, NULL);
    for (uint32_t i = b->first; i != b->end && st == ST_OK; i = p->e.nodes[i].next)
        st = make_node(p, i);
    if (!b->ends)
        repeat(p->k->m, any, 0, ANY_COUNT, NULL);
    return st;
}

status make_pattern(struct making *k, const char *text, bool known, uint64_t least, uint64_t most,
                    const struct where *at)
{
    struct pattern p = {.k = k, .at = at};
    struct ways w;
    status st = spend(k, strlen(text), at);
    if (st != ST_OK)
        return st;
    st = expression_parse(&p.e, text, at);
    if (st == ST_OK && !known)
        st = expression_check_counts(&p.e, at);
    grammar_byte(k->m, '"', '"');
    ways_begin(k->m, &w);
    for (uint32_t i = st == ST_OK ? p.e.nodes[0].child : 0; i && st == ST_OK; i = p.e.nodes[i].next) {
        const struct branch b = branch_of(&p.e, i);
        if ((st = cut_to(&p, &b, least, most)) != ST_OK || is_empty(&p, &b, most))
            continue;
        ways_next(k->m, &w);
        st = make_branch(&p, &b);
    }
    ways_end(k->m, &w);
    grammar_byte(k->m, '"', '"');
    expression_free(&p.e);
    return st;
}
