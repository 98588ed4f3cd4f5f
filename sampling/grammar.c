#include "sampling/grammar.h"

#include <stdbool.h>
#include <stdlib.h>
#include "base/log.h"

static bool runs_on(const struct grammar_op *op) { return op->kind == GRAMMAR_BYTE || op->kind == GRAMMAR_CALL; }

static status check_op(const struct grammar *g, uint32_t i)
{
    const struct grammar_op *op = &g->ops[i];
    if (op->kind >= GRAMMAR_KINDS) {
        log_error("grammar: op %u is of kind %u, expected less than %d", i, op->kind, GRAMMAR_KINDS);
        return ST_FORMAT;
    }
    const bool has_a = op->kind == GRAMMAR_SPLIT || op->kind == GRAMMAR_JUMP || op->kind == GRAMMAR_CALL;
    const uint32_t to = op->kind == GRAMMAR_SPLIT && op->a < g->n_ops ? op->b : op->a;
    if (has_a && to >= g->n_ops) {
        log_error("grammar: op %u goes on at op %u, expected one of %u", i, to, g->n_ops);
        return ST_FORMAT;
    }
    return ST_OK;
}

status grammar_check(const struct grammar *g)
{
    status st;
    if (g->n_ops == 0 || g->n_ops > GRAMMAR_OPS) {
        log_error("grammar: %u ops, expected 1 to %d", g->n_ops, GRAMMAR_OPS);
        return ST_FORMAT;
    }
    for (uint32_t i = 0; i < g->n_ops; i++)
        if ((st = check_op(g, i)) != ST_OK)
            return st;
    if (runs_on(&g->ops[g->n_ops - 1])) {
        log_error("grammar: its last op, %u, goes on at the next", g->n_ops - 1);
        return ST_FORMAT;
    }
    return ST_OK;
}

/* --- the maker --- */

static void grow(struct grammar_maker *m)
{
    if (m->n >= GRAMMAR_OPS) {
        log_error("grammar: more than %d ops", GRAMMAR_OPS);
        m->st = ST_FULL;
        return;
    }
    const uint32_t cap = m->cap ? 2 * m->cap : 64;
    struct grammar_op *ops = realloc(m->ops, cap * sizeof *ops);
    if (!ops) {
        log_error("grammar: no memory for %u ops", cap);
        m->st = ST_NOMEM;
        return;
    }
    m->ops = ops;
    m->cap = cap;
}

static uint32_t put(struct grammar_maker *m, struct grammar_op op)
{
    if (m->st == ST_OK && m->n >= m->cap)
        grow(m);
    if (m->st != ST_OK)
        return m->n;
    m->ops[m->n] = op;
    return m->n++;
}

uint32_t grammar_here(const struct grammar_maker *m) { return m->n; }

uint32_t grammar_byte(struct grammar_maker *m, uint8_t lo, uint8_t hi)
{
    return put(m, (struct grammar_op){.kind = GRAMMAR_BYTE, .lo = lo, .hi = hi});
}

uint32_t grammar_split(struct grammar_maker *m, uint32_t a, uint32_t b)
{
    return put(m, (struct grammar_op){.kind = GRAMMAR_SPLIT, .a = a, .b = b});
}

uint32_t grammar_jump(struct grammar_maker *m, uint32_t a)
{
    return put(m, (struct grammar_op){.kind = GRAMMAR_JUMP, .a = a});
}

uint32_t grammar_call(struct grammar_maker *m, uint32_t a)
{
    return put(m, (struct grammar_op){.kind = GRAMMAR_CALL, .a = a});
}

uint32_t grammar_return(struct grammar_maker *m) { return put(m, (struct grammar_op){.kind = GRAMMAR_RETURN}); }

void grammar_patch(struct grammar_maker *m, uint32_t place, uint32_t to)
{
    if (m->st != ST_OK || place >= m->n)
        return;
    struct grammar_op *op = &m->ops[place];
    if (op->a == UINT32_MAX)
        op->a = to;
    if (op->b == UINT32_MAX)
        op->b = to;
}

void grammar_text(struct grammar_maker *m, const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++)
        grammar_byte(m, (uint8_t)text[i], (uint8_t)text[i]);
}

/* --- characters --- */

/* Characters whose UTF-8 is all sequences of a byte of the first's to last's first byte, a byte of their second ones,
 * and so on. */
struct span {
    uint32_t lo, hi;
};

enum { MOST_SPANS = 32 }; /* of all characters: 4 lengths, cut at both ends at each byte, and at the surrogates */

static int utf8_of(uint32_t c, uint8_t out[4])
{
    const int n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    static const uint8_t marks[] = {0, 0, 0xC0, 0xE0, 0xF0};
    for (int i = n - 1; i > 0; i--, c >>= 6)
        out[i] = (uint8_t)(0x80 | (c & 0x3F));
    out[0] = (uint8_t)(marks[n] | c);
    return n;
}

/* Where lo .. hi must be cut: the last character of the first part, or hi. */
static uint32_t first_cut(uint32_t lo, uint32_t hi)
{
    static const uint32_t ends[] = {0x7F, 0x7FF, 0xFFFF}; /* of the lengths */
    for (int i = 0; i < 3; i++)
        if (lo <= ends[i] && hi > ends[i])
            hi = ends[i];
    if (hi < 0x80)
        return hi;
    for (uint32_t low = 0x3F; low < hi; low = low << 6 | 0x3F) { /* the bits of the last bytes */
        if ((lo & ~low) == (hi & ~low))
            break;
        if (lo & low)
            return lo | low;
        if ((hi & low) != low)
            hi = (hi & ~low) - 1;
    }
    return hi;
}

static int cut_spans(uint32_t lo, uint32_t hi, struct span *out)
{
    int n = 0;
    if (hi > 0x10FFFF)
        hi = 0x10FFFF;
    while (lo <= hi) {
        if (lo >= 0xD800 && lo <= 0xDFFF) {
            lo = 0xE000;
            continue;
        }
        const uint32_t most = lo < 0xD800 && hi >= 0xD800 ? 0xD7FF : hi;
        out[n] = (struct span){lo, first_cut(lo, most)};
        lo = out[n++].hi + 1;
    }
    return n;
}

void grammar_characters(struct grammar_maker *m, uint32_t lo, uint32_t hi)
{
    struct span spans[MOST_SPANS];
    uint32_t ways_out[MOST_SPANS];
    const int n = cut_spans(lo, hi, spans);
    if (n == 0)
        grammar_byte(m, 1, 0);
    for (int i = 0; i < n; i++) {
        uint8_t first[4], last[4];
        const int length = utf8_of(spans[i].lo, first);
        utf8_of(spans[i].hi, last);
        const uint32_t here = grammar_here(m);
        if (i + 1 < n)
            grammar_split(m, here + 1, here + (uint32_t)length + 2);
        for (int k = 0; k < length; k++)
            grammar_byte(m, first[k], last[k]);
        if (i + 1 < n)
            ways_out[i] = grammar_jump(m, UINT32_MAX);
    }
    for (int i = 0; i + 1 < n; i++)
        grammar_patch(m, ways_out[i], grammar_here(m));
}

/* --- the end --- */

status grammar_made(struct grammar_maker *m, struct grammar *out)
{
    const struct grammar g = {m->ops, m->n};
    status st = m->st == ST_OK ? grammar_check(&g) : m->st;
    if (st != ST_OK) {
        grammar_drop(m);
        return st;
    }
    *m = (struct grammar_maker){0};
    *out = g;
    return ST_OK;
}

void grammar_drop(struct grammar_maker *m)
{
    free(m->ops);
    *m = (struct grammar_maker){0};
}
