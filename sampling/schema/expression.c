#include "sampling/schema/expression.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

enum { MOST_GROUPS = 50, MOST_NODES = 1 << 14, LAST_CHARACTER = 0x10FFFF };

/* Once something is wrong, st says it and nothing more is read. */
struct reader {
    struct expression *e;
    const char *text, *at; /* valid UTF-8 */
    const struct where *where;
    int groups;
    status st;
};

static void fail(struct reader *r, const char *what)
{
    if (r->st == ST_OK)
        r->st = schema_refuse(r->where, ST_USAGE, "pattern: %s at byte %zu", what, (size_t)(r->at - r->text));
}

/* Room for one more of n, doubled; NULL: r->st says why. */
static void *room(struct reader *r, void *all, uint32_t n, uint32_t *cap, size_t size)
{
    if (n < *cap || r->st != ST_OK)
        return r->st == ST_OK ? all : NULL;
    if (n >= MOST_NODES) {
        r->st = schema_refuse(r->where, ST_FULL, "the pattern is too large");
        return NULL;
    }
    void *more = realloc(all, (*cap ? 2 * *cap : 32) * size);
    if (!more) {
        log_error("schema: no memory for a pattern");
        r->st = ST_NOMEM;
        return NULL;
    }
    *cap = *cap ? 2 * *cap : 32;
    return more;
}

static uint32_t new_node(struct reader *r, enum node_kind kind)
{
    struct expression *e = r->e;
    struct node *nodes = room(r, e->nodes, e->n_nodes, &e->cap_nodes, sizeof *nodes);
    if (!nodes)
        return 0;
    e->nodes = nodes;
    e->nodes[e->n_nodes] = (struct node){.kind = (uint8_t)kind};
    return e->n_nodes++;
}

static void push_span(struct reader *r, uint32_t lo, uint32_t hi)
{
    struct expression *e = r->e;
    struct span *spans = room(r, e->spans, e->n_spans, &e->cap_spans, sizeof *spans);
    if (!spans)
        return;
    e->spans = spans;
    e->spans[e->n_spans++] = (struct span){lo, hi};
}

static bool next_is(struct reader *r, const char *text)
{
    return r->st == ST_OK && strncmp(r->at, text, strlen(text)) == 0;
}

static bool take(struct reader *r, const char *text)
{
    const bool there = next_is(r, text);
    if (there)
        r->at += strlen(text);
    return there;
}

static uint32_t take_character(struct reader *r)
{
    const unsigned char first = (unsigned char)*r->at;
    const int n = first < 0x80 ? 1 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
    uint32_t c = n == 1 ? first : first & (0x7Fu >> n);
    r->at++;
    for (int i = 1; i < n && *r->at; i++)
        c = c << 6 | ((unsigned char)*r->at++ & 0x3F);
    return c;
}

/* --- sets --- */

static int compare(const void *a, const void *b)
{
    const struct span *x = a, *y = b;
    return x->lo < y->lo ? -1 : x->lo > y->lo;
}

/* Sorts the spans from `first` on and joins those that touch. */
static void join_spans(struct expression *e, uint32_t first)
{
    uint32_t n = first;
    if (e->n_spans > first)
        qsort(e->spans + first, e->n_spans - first, sizeof *e->spans, compare);
    for (uint32_t i = first; i < e->n_spans; i++) {
        const struct span s = e->spans[i];
        if (n == first || s.lo > e->spans[n - 1].hi + 1)
            e->spans[n++] = s;
        else if (s.hi > e->spans[n - 1].hi)
            e->spans[n - 1].hi = s.hi;
    }
    e->n_spans = n;
}

/* The spans from `first` on become all others. */
static void turn_spans(struct reader *r, uint32_t first)
{
    struct expression *e = r->e;
    join_spans(e, first);
    const uint32_t n = e->n_spans;
    uint32_t next = 0;
    for (uint32_t i = first; i < n && r->st == ST_OK; i++) {
        const struct span s = e->spans[i];
        if (s.lo > next)
            push_span(r, next, s.lo - 1);
        next = s.hi + 1;
    }
    if (next <= LAST_CHARACTER)
        push_span(r, next, LAST_CHARACTER);
    if (r->st != ST_OK)
        return;
    memmove(e->spans + first, e->spans + n, (e->n_spans - n) * sizeof *e->spans);
    e->n_spans -= n - first;
}

/* \d \w \s and their opposites. Where readers differ over which spaces there are, \s has those that all know and \S
 * none that any knows. */
static bool take_class_escape(struct reader *r)
{
    static const struct span digits[] = {{'0', '9'}}, words[] = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}},
        spaces[] = {{9, 10}, {12, 13}, {' ', ' '}},
        any_spaces[] = {{9, 13}, {0x1C, ' '}, {0x85, 0x85}, {0xA0, 0xA0}, {0x1680, 0x1680}, {0x2000, 0x200A},
                        {0x2028, 0x2029}, {0x202F, 0x202F}, {0x205F, 0x205F}, {0x3000, 0x3000}, {0xFEFF, 0xFEFF}};
    static const struct {
        const char *escape;
        const struct span *spans;
        int n;
        bool turned;
    } all[] = {{"\\d", digits, 1, false}, {"\\D", digits, 1, true}, {"\\w", words, 4, false}, {"\\W", words, 4, true},
               {"\\s", spaces, 3, false}, {"\\S", any_spaces, 11, true}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        const uint32_t first = r->e->n_spans;
        if (!take(r, all[i].escape))
            continue;
        for (int k = 0; k < all[i].n; k++)
            push_span(r, all[i].spans[k].lo, all[i].spans[k].hi);
        if (all[i].turned)
            turn_spans(r, first);
        return true;
    }
    return false;
}

static uint32_t take_hex(struct reader *r, int n)
{
    uint32_t c = 0;
    for (int i = 0; i < n; i++) {
        const char *digits = "0123456789abcdef", *d = *r->at ? strchr(digits, tolower((unsigned char)*r->at)) : NULL;
        if (!d) {
            fail(r, "too few hexadecimal digits");
            return 0;
        }
        c = 16 * c + (uint32_t)(d - digits);
        r->at++;
    }
    return c;
}

/* Behind "\u": with a pair of surrogates as one character. */
static uint32_t take_unicode(struct reader *r)
{
    uint32_t c = take_hex(r, 4), low;
    if (c >= 0xD800 && c < 0xDC00 && take(r, "\\u") && (low = take_hex(r, 4)) >= 0xDC00 && low < 0xE000)
        return 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00);
    if (c >= 0xD800 && c < 0xE000)
        fail(r, "half a character");
    return c;
}

/* A character, by itself or behind a backslash. */
static uint32_t take_one(struct reader *r, bool in_class)
{
    static const char names[] = "tnrfv", values[] = "\t\n\r\f\v";
    if (!take(r, "\\"))
        return take_character(r);
    const char c = *r->at;
    const char *name = c ? strchr(names, c) : NULL;
    if (name) {
        r->at++;
        return (uint32_t)values[name - names];
    }
    if (take(r, "x"))
        return take_hex(r, 2);
    if (take(r, "u"))
        return take_unicode(r);
    if (in_class && take(r, "b"))
        return '\b';
    if (c >= '0' && c <= '9')
        fail(r, "a reference to a group, which is not supported,");
    else if (isalpha((unsigned char)c))
        fail(r, "an escape that is not supported");
    else if (!c)
        fail(r, "a backslash");
    return r->st == ST_OK ? take_character(r) : 0;
}

/* Behind "[". */
static void take_class(struct reader *r)
{
    const uint32_t first = r->e->n_spans;
    const bool turned = take(r, "^");
    while (r->st == ST_OK && *r->at && *r->at != ']') {
        if (take_class_escape(r))
            continue;
        const uint32_t lo = take_one(r, true);
        uint32_t hi = lo;
        if (r->at[0] == '-' && r->at[1] && r->at[1] != ']') {
            r->at++;
            hi = take_one(r, true);
        }
        if (hi < lo)
            fail(r, "a range that ends before it begins,");
        push_span(r, lo, hi);
    }
    if (!take(r, "]"))
        fail(r, "no ]");
    if (r->st == ST_OK && turned)
        turn_spans(r, first);
}

static uint32_t take_set(struct reader *r)
{
    struct expression *e = r->e;
    const uint32_t node = new_node(r, NODE_SET), first = e->n_spans;
    if (take(r, ".")) {
        push_span(r, '\n', '\n');
        push_span(r, '\r', '\r');
        push_span(r, 0x2028, 0x2029);
        turn_spans(r, first);
    } else if (take(r, "[")) {
        take_class(r);
    } else if (!take_class_escape(r)) {
        const uint32_t c = take_one(r, false);
        push_span(r, c, c);
    }
    if (r->st != ST_OK)
        return 0;
    join_spans(e, first);
    e->nodes[node].span = first;
    e->nodes[node].n_spans = e->n_spans - first;
    return node;
}

/* --- groups --- */

static void take_choice(struct reader *r, uint32_t choice);

/* Behind "(": what a group is called does not matter. */
static uint32_t take_group(struct reader *r)
{
    if (take(r, "?") && !take(r, ":")) {
        take(r, "P");
        if (next_is(r, "<=") || next_is(r, "<!") || !take(r, "<"))
            fail(r, "a group that looks around or has options, which is not supported,");
        while (r->st == ST_OK && *r->at && !take(r, ">"))
            r->at++;
    }
    if (++r->groups > MOST_GROUPS)
        fail(r, "too many groups within each other");
    const uint32_t node = new_node(r, NODE_CHOICE);
    if (r->st == ST_OK)
        take_choice(r, node);
    r->groups--;
    if (!take(r, ")"))
        fail(r, "no )");
    return node;
}

static uint64_t take_count(struct reader *r, uint64_t otherwise)
{
    uint64_t n = 0;
    if (!isdigit((unsigned char)*r->at))
        return otherwise;
    for (; isdigit((unsigned char)*r->at); r->at++)
        n = n <= MOST_COUNT ? 10 * n + (uint64_t)(*r->at - '0') : n;
    if (n > MOST_COUNT)
        fail(r, "too large a count");
    return n;
}

/* Whether something is to be repeated, and how often. */
static bool take_times(struct reader *r, uint64_t *least, uint64_t *most)
{
    *least = 0;
    *most = ANY_COUNT;
    if (take(r, "?")) {
        *most = 1;
    } else if (take(r, "+")) {
        *least = 1;
    } else if (r->at[0] == '{' && isdigit((unsigned char)r->at[1])) {
        r->at++;
        *least = take_count(r, 0);
        *most = take(r, ",") ? take_count(r, ANY_COUNT) : *least;
        if (!take(r, "}") || *most < *least)
            fail(r, "a count that is none");
    } else if (!take(r, "*")) {
        return false;
    }
    take(r, "?"); /* as few as possible: the same texts */
    return true;
}

static uint32_t take_item(struct reader *r)
{
    struct expression *e = r->e;
    uint64_t least, most;
    uint32_t item;
    if (strchr("*+?", *r->at))
        fail(r, "nothing to repeat");
    if (take(r, "^"))
        return new_node(r, NODE_BEGIN);
    if (take(r, "$"))
        return new_node(r, NODE_END);
    item = take(r, "(") ? take_group(r) : take_set(r);
    if (r->st != ST_OK || !take_times(r, &least, &most))
        return item;
    const uint32_t node = new_node(r, NODE_REPEAT);
    if (r->st != ST_OK)
        return 0;
    e->nodes[node].child = item;
    e->nodes[node].least = least;
    e->nodes[node].most = most;
    return node;
}

/* Up to a | or the group's end. */
static uint32_t take_sequence(struct reader *r)
{
    const uint32_t node = new_node(r, NODE_SEQUENCE);
    uint32_t last = 0;
    while (r->st == ST_OK && *r->at && *r->at != '|' && *r->at != ')') {
        const uint32_t item = take_item(r);
        if (r->st != ST_OK)
            return 0;
        *(last ? &r->e->nodes[last].next : &r->e->nodes[node].child) = item;
        last = item;
    }
    return node;
}

static void take_choice(struct reader *r, uint32_t choice)
{
    uint32_t last = 0;
    do {
        const uint32_t sequence = take_sequence(r);
        if (r->st != ST_OK)
            return;
        *(last ? &r->e->nodes[last].next : &r->e->nodes[choice].child) = sequence;
        last = sequence;
    } while (take(r, "|"));
}

status expression_parse(struct expression *e, const char *text, const struct where *at)
{
    struct reader r = {.e = e, .text = text, .at = text, .where = at};
    *e = (struct expression){0};
    new_node(&r, NODE_CHOICE);
    if (r.st == ST_OK)
        take_choice(&r, 0);
    if (r.st == ST_OK && *r.at)
        fail(&r, "a ) too many");
    return r.st;
}

void expression_free(struct expression *e)
{
    free(e->nodes);
    free(e->spans);
    *e = (struct expression){0};
}
