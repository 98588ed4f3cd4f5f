#include "serve/text_rule.h"

#include <stdlib.h>
#include <string.h>
#include "model/thoughts.h"

/* A text is a word of an automaton (Aho and Corasick 1975), whose states are the beginnings of marks. Of the control
 * token's byte nothing is left to remember: behind it the name is letters like any others. */
struct automaton {
    struct text_mark marks[TEXT_MARKS + 1]; /* [n]; with `first`, that one is the last and has states of its own */
    size_t n;
    bool first;
    bool letters[256]; /* of any of them */
};

/* `length` letters of a mark have come; the first state, where nothing has, is {0, 0}. */
struct state {
    size_t mark, length;
};

enum { MOST_STATES = 512 };

static bool is_space(int c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* The mark's letter behind so many is c. */
static bool goes_on(const struct text_mark *m, size_t length, int c)
{
    return (uint8_t)m->text[length] == c;
}

/* Where byte c leads from a state: the longest end of what came that is the beginning of a mark. */
static struct state next(const struct automaton *a, struct state s, int c)
{
    const size_t any = a->n - a->first;
    const char *came = a->marks[s.mark].text;
    if (a->first && s.mark == any) {
        if (s.length == 0 && is_space(c))
            return s;
        if (goes_on(&a->marks[any], s.length, c))
            return (struct state){any, s.length + 1};
    }
    if (!a->letters[c])
        return (struct state){0, 0};
    for (size_t skip = 0; skip <= s.length; skip++) {
        const size_t length = s.length - skip;
        for (size_t i = 0; i < any; i++)
            if (strlen(a->marks[i].text) > length && strncmp(a->marks[i].text, came + skip, length) == 0 &&
                goes_on(&a->marks[i], length, c))
                return (struct state){i, length + 1};
    }
    return (struct state){0, 0};
}

static bool is_complete(const struct automaton *a, struct state s)
{
    return s.length && a->marks[s.mark].text[s.length] == '\0';
}

/* The same state, if another mark begins alike. */
static struct state first_of(const struct automaton *a, struct state s)
{
    const size_t any = a->n - a->first;
    for (size_t i = 0; i < s.mark && s.mark < any; i++)
        if (strncmp(a->marks[i].text, a->marks[s.mark].text, s.length) == 0)
            return (struct state){i, s.length};
    return s;
}

/* The number of a state, that is to be written if it is new. */
static size_t number_of(const struct automaton *a, struct state s, struct state *states, uint32_t *places, size_t *n,
                        struct grammar_maker *m)
{
    s = first_of(a, s);
    for (size_t i = 0; i < *n; i++)
        if (states[i].mark == s.mark && states[i].length == s.length)
            return i;
    if (*n == MOST_STATES) { /* no marks are that long */
        m->st = ST_FULL;
        return 0;
    }
    states[*n] = s;
    places[*n] = text_label(m);
    return (*n)++;
}

/* Bytes lo to hi lead to an op; `more`: there are others. */
static void put_way(struct grammar_maker *m, int lo, int hi, uint32_t to, bool more)
{
    const uint32_t here = grammar_here(m);
    if (more)
        grammar_split(m, here + 1, here + 3);
    grammar_byte(m, (uint8_t)lo, (uint8_t)hi);
    grammar_jump(m, to);
}

/* Where byte c leads from a state, as an op. */
static uint32_t way_of(const struct automaton *a, struct state s, int c, struct state *states, uint32_t *places,
                       size_t *n, struct grammar_maker *m)
{
    const struct state to = next(a, s, c);
    return is_complete(a, to) ? a->marks[to.mark].to : places[number_of(a, to, states, places, n, m)];
}

void text_rule(struct grammar_maker *m, const struct text_mark *marks, size_t n, const struct text_mark *first,
               bool ends)
{
    struct automaton a = {.n = n, .first = first != NULL};
    struct state states[MOST_STATES];
    uint32_t places[MOST_STATES], ways[256];
    size_t n_states = 0;
    memcpy(a.marks, marks, n * sizeof *marks);
    if (first)
        a.marks[a.n++] = *first;
    else if (n == 0)
        a.marks[0].text = "";
    for (size_t i = 0; i < a.n; i++)
        for (const char *c = a.marks[i].text; *c; c++)
            a.letters[(uint8_t)*c] = true;
    number_of(&a, (struct state){first ? n : 0, 0}, states, places, &n_states, m);
    for (size_t i = 0; i < n_states && m->st == ST_OK; i++) {
        for (int c = 0; c < 256; c++)
            ways[c] = way_of(&a, states[i], c, states, places, &n_states, m);
        grammar_patch(m, places[i], grammar_here(m));
        if (ends) {
            grammar_split(m, grammar_here(m) + 1, grammar_here(m) + 2);
            grammar_return(m);
        }
        for (int lo = 0, hi; lo < 256; lo = hi + 1) {
            for (hi = lo; hi < 255 && ways[hi + 1] == ways[lo];)
                hi++;
            put_way(m, lo, hi, ways[lo], hi < 255);
        }
    }
}

uint32_t text_label(struct grammar_maker *m)
{
    const uint32_t here = grammar_here(m);
    grammar_jump(m, here + 2);
    return grammar_jump(m, UINT32_MAX);
}

void text_grammar(struct grammar_maker *m, const struct grammar *g)
{
    const uint32_t from = grammar_here(m);
    for (uint32_t i = 0; i < g->n_ops; i++) {
        const struct grammar_op *op = &g->ops[i];
        switch (op->kind) {
        case GRAMMAR_BYTE: grammar_byte(m, op->lo, op->hi); break;
        case GRAMMAR_SPLIT: grammar_split(m, from + op->a, from + op->b); break;
        case GRAMMAR_JUMP: grammar_jump(m, from + op->a); break;
        case GRAMMAR_CALL: grammar_call(m, from + op->a); break;
        default: grammar_return(m); break;
        }
    }
}

/* --- thoughts --- */

/* White space, or nothing, up to four bytes of it; then it goes on. */
static void put_spaces(struct grammar_maker *m)
{
    static const char spaces[] = {' ', '\n'};
    const uint32_t end = text_label(m);
    for (int i = 0; i < 4; i++) {
        grammar_split(m, grammar_here(m) + 1, end);
        const uint32_t here = grammar_here(m);
        grammar_split(m, here + 1, here + 3);
        grammar_byte(m, (uint8_t)spaces[0], (uint8_t)spaces[0]);
        grammar_jump(m, here + 4);
        grammar_byte(m, (uint8_t)spaces[1], (uint8_t)spaces[1]);
    }
    grammar_patch(m, end, grammar_here(m));
}

/* A control token, or letters. */
static void put_mark(struct grammar_maker *m, const char *mark)
{
    const uint32_t here = grammar_here(m);
    grammar_split(m, here + 1, here + 2);
    grammar_byte(m, GRAMMAR_CONTROL, GRAMMAR_CONTROL);
    grammar_text(m, mark, strlen(mark));
}

/* Whether a vocabulary has a token with which the mark begins. */
static bool has_mark(const struct tokenizer *t, const char *mark)
{
    char token[64];
    const size_t n = strcspn(mark, ">]") + 1;
    if (!t || n >= sizeof token)
        return !t;
    memcpy(token, mark, n);
    token[n] = '\0';
    return tokenizer_find(t, token) >= 0;
}

/* Thoughts that a model opens itself, and what stands between them; then the text goes on. `close`: it begins within
 * one. */
static void put_thoughts(struct grammar_maker *m, const struct tokenizer *t, const char *close)
{
    const struct thoughts_mark *marks;
    size_t n;
    const uint32_t behind = text_label(m);
    if (close)
        text_rule(m, &(struct text_mark){close, behind}, 1, NULL, false);
    grammar_patch(m, behind, grammar_here(m));
    put_spaces(m);
    marks = thoughts_marks(&n);
    for (size_t i = 0; i < n; i++) {
        if (marks[i].answers || !has_mark(t, marks[i].open))
            continue;
        const uint32_t split = grammar_split(m, grammar_here(m) + 1, UINT32_MAX);
        put_mark(m, marks[i].open);
        if (marks[i].close)
            text_rule(m, &(struct text_mark){marks[i].close, behind}, 1, NULL, false);
        else
            grammar_jump(m, behind);
        grammar_patch(m, split, grammar_here(m));
    }
}

status grammar_behind_thoughts(struct grammar *g, const struct tokenizer *t, const char *close)
{
    struct grammar_maker m = {0};
    struct grammar out;
    put_thoughts(&m, t, close);
    text_grammar(&m, g);
    status st = grammar_made(&m, &out);
    if (st != ST_OK)
        return st;
    free((void *)g->ops);
    *g = out;
    return ST_OK;
}
