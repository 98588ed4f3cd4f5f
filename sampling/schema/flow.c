/* Ways through a grammar: alternatives, rules aside, counts; and what is made of the whole in the end. */
#include <stdlib.h>

#include "base/log.h"
#include "sampling/schema/making.h"

/* All ways end at one place, whose JUMP knows the end before there is one. */
void ways_begin(struct grammar_maker *m, struct ways *w)
{
    grammar_jump(m, grammar_here(m) + 2);
    w->end = grammar_jump(m, NOWHERE);
    w->split = NOWHERE;
}

static void end_way(struct grammar_maker *m, const struct ways *w)
{
    if (w->split == NOWHERE)
        return;
    grammar_jump(m, w->end);
    grammar_patch(m, w->split, grammar_here(m));
}

void ways_next(struct grammar_maker *m, struct ways *w)
{
    end_way(m, w);
    w->split = maybe(m);
}

void ways_end(struct grammar_maker *m, struct ways *w)
{
    end_way(m, w);
    dead_end(m);
    grammar_patch(m, w->end, grammar_here(m));
}

void dead_end(struct grammar_maker *m)
{
    grammar_jump(m, grammar_here(m));
}

struct aside aside_begin(struct grammar_maker *m)
{
    const uint32_t over = grammar_jump(m, NOWHERE);
    return (struct aside){over, grammar_here(m)};
}

uint32_t aside_end(struct grammar_maker *m, const struct aside *a)
{
    grammar_return(m);
    grammar_patch(m, a->over, grammar_here(m));
    return a->place;
}

uint32_t maybe(struct grammar_maker *m)
{
    return grammar_split(m, grammar_here(m) + 1, NOWHERE);
}

/* --- counts --- */

enum {
    PLAIN_COUNT = 64, /* so many are written one after another */
    BASE = 16         /* more as digits of this base: few ops, and few ways to be at once */
};

static uint64_t size_of(int level) { return UINT64_C(1) << 4 * level; }
_Static_assert(BASE == 1 << 4 && MOST_COUNT == 1 << 4 * COUNT_LEVELS, "size_of");

static void exactly(struct grammar_maker *m, const struct powers *p, uint64_t n)
{
    for (int level = COUNT_LEVELS; level >= 0; level--)
        for (; n >= size_of(level); n -= size_of(level))
            grammar_call(m, p->exactly[level]);
}

/* Fewer than a power, and that is all (end); or that power, and on. */
static void step(struct grammar_maker *m, const struct powers *p, int level, uint32_t end)
{
    grammar_split(m, grammar_here(m) + 1, grammar_here(m) + 3);
    grammar_call(m, p->below[level]);
    grammar_jump(m, end);
    grammar_call(m, p->exactly[level]);
}

static void up_to(struct grammar_maker *m, const struct powers *p, uint64_t n)
{
    grammar_jump(m, grammar_here(m) + 2);
    const uint32_t end = grammar_jump(m, NOWHERE);
    for (int level = COUNT_LEVELS; level >= 0; level--)
        for (; n >= size_of(level); n -= size_of(level))
            step(m, p, level, end);
    grammar_patch(m, end, grammar_here(m));
}

static void make_powers(struct grammar_maker *m, uint32_t rule, struct powers *p)
{
    const uint32_t over = grammar_jump(m, NOWHERE);
    p->exactly[0] = rule;
    p->below[0] = grammar_return(m);
    for (int level = 1; level <= COUNT_LEVELS; level++) {
        p->exactly[level] = grammar_here(m);
        for (int i = 0; i < BASE; i++)
            grammar_call(m, p->exactly[level - 1]);
        grammar_return(m);
        p->below[level] = grammar_here(m);
        for (int i = 1; i < BASE; i++)
            step(m, p, level - 1, p->below[0]);
        grammar_call(m, p->below[level - 1]);
        grammar_return(m);
    }
    grammar_patch(m, over, grammar_here(m));
    p->made = true;
}

static void up_to_plain(struct grammar_maker *m, uint32_t rule, uint64_t n)
{
    const uint32_t first = grammar_here(m);
    for (uint64_t i = 0; i < n; i++) {
        maybe(m);
        grammar_call(m, rule);
    }
    for (uint64_t i = 0; i < n; i++)
        grammar_patch(m, first + 2 * (uint32_t)i, grammar_here(m));
}

static void any_number(struct grammar_maker *m, uint32_t rule)
{
    const uint32_t again = maybe(m);
    grammar_call(m, rule);
    grammar_jump(m, again);
    grammar_patch(m, again, grammar_here(m));
}

void repeat(struct grammar_maker *m, uint32_t rule, uint64_t least, uint64_t most, struct powers *kept)
{
    const uint64_t more = most == ANY_COUNT ? 0 : most - least;
    struct powers own = {0}, *p = kept ? kept : &own;
    if ((least > PLAIN_COUNT || more > PLAIN_COUNT) && !p->made)
        make_powers(m, rule, p);
    if (least > PLAIN_COUNT)
        exactly(m, p, least);
    else
        for (uint64_t i = 0; i < least; i++)
            grammar_call(m, rule);
    if (most == ANY_COUNT)
        any_number(m, rule);
    else if (more > PLAIN_COUNT)
        up_to(m, p, more);
    else
        up_to_plain(m, rule, more);
}

/* --- the end --- */

/* Whether a text comes from op i to a RETURN, as far as that is known. */
static bool leads_on(const struct grammar_op *op, const bool *ends, uint32_t i)
{
    switch (op[i].kind) {
    case GRAMMAR_BYTE: return ends[i + 1];
    case GRAMMAR_SPLIT: return ends[op[i].a] || ends[op[i].b];
    case GRAMMAR_JUMP: return ends[op[i].a];
    case GRAMMAR_CALL: return ends[op[i].a] && ends[i + 1];
    default: return true;
    }
}

/* Whether every way from op i comes to a byte before it comes to i again, as far as that is known. */
static bool moves_on(const struct grammar_op *op, const bool *moves, uint32_t i)
{
    switch (op[i].kind) {
    case GRAMMAR_SPLIT: return moves[op[i].a] && moves[op[i].b];
    case GRAMMAR_JUMP:
    case GRAMMAR_CALL: return moves[op[i].a];
    default: return true;
    }
}

/* Finds out of all ops from start on, the last first, until nothing more is found. */
static void find_out(const struct grammar_maker *m, uint32_t start, bool *known,
                     bool (*holds)(const struct grammar_op *, const bool *, uint32_t))
{
    for (bool more = true; more;) {
        more = false;
        for (uint32_t i = m->n; i-- > start;)
            if (!known[i] && holds(m->ops, known, i))
                more = known[i] = true;
    }
}

static void take_out(struct grammar_maker *m, uint32_t start, const bool *ends)
{
    for (uint32_t i = start; i < m->n; i++) {
        struct grammar_op *op = &m->ops[i];
        if (op->kind == GRAMMAR_SPLIT && ends[i] && !(ends[op->a] && ends[op->b]))
            *op = (struct grammar_op){.kind = GRAMMAR_JUMP, .a = ends[op->a] ? op->a : op->b};
    }
}

status finish(struct making *k, uint32_t start, uint32_t root)
{
    struct grammar_maker *m = k->m;
    status st = ST_OK;
    if (m->st != ST_OK)
        return m->st;
    bool *ends = calloc(m->n + 1, sizeof *ends), *moves = calloc(m->n + 1, sizeof *moves);
    if (!ends || !moves) {
        log_error("schema: no memory for %u ops", m->n);
        st = ST_NOMEM;
        goto out;
    }
    find_out(m, start, ends, leads_on);
    if (!ends[root]) {
        st = schema_refuse(NULL, ST_USAGE, "no JSON is valid by it");
        goto out;
    }
    take_out(m, start, ends);
    find_out(m, start, moves, moves_on);
    for (size_t i = 0; i < k->n_rules && st == ST_OK; i++)
        if (ends[k->rules[i].place] && !moves[k->rules[i].place])
            st = schema_refuse(&(struct where){NULL, k->rules[i].path, 0}, ST_USAGE, "refers to itself");
out:
    free(ends);
    free(moves);
    return st;
}
