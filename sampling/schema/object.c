/* Objects: named properties in the schema's order, then others, none of which has a named one's name. The names of
 * others hold no escapes, so that a name has one spelling. */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "sampling/schema/making.h"

struct property {
    const char *name;
    const json_t *schema;
    bool required;
};

struct properties {
    struct property *all; /* [n] in their order */
    size_t n;
    const json_t *others; /* NULL: none */
};

/* --- names of others --- */

struct names {
    const char **sorted; /* [n] */
    size_t n;
    uint32_t rest;         /* a rule: the rest of a name and its quote */
    uint32_t but_for[128]; /* rules: a name that begins with another character; NOWHERE: not made */
};

/* The character at text, which is valid UTF-8, and how many bytes it has. */
static uint32_t character_at(const char *text, size_t *n)
{
    const unsigned char *s = (const unsigned char *)text;
    *n = s[0] < 0x80 ? 1 : s[0] < 0xE0 ? 2 : s[0] < 0xF0 ? 3 : 4;
    uint32_t c = *n == 1 ? s[0] : s[0] & (0x7F >> *n);
    for (size_t i = 1; i < *n && s[i]; i++)
        c = c << 6 | (s[i] & 0x3F);
    return c;
}

/* A plain character of lo .. hi, and the rest. */
static void make_gap(struct making *k, struct names *t, struct ways *w, uint32_t lo, uint32_t hi)
{
    static const uint32_t special[] = {'"', '\\'};
    if (lo < 0x20)
        lo = 0x20;
    for (int i = 0; i < 2; i++)
        if (lo <= special[i] && special[i] <= hi) {
            if (special[i] > lo)
                make_gap(k, t, w, lo, special[i] - 1);
            lo = special[i] + 1;
        }
    if (lo > hi)
        return;
    ways_next(k->m, w);
    grammar_characters(k->m, lo, hi);
    grammar_call(k->m, t->rest);
}

/* What most names need: all but for one character of ASCII. */
static uint32_t but_for(struct making *k, struct names *t, uint32_t c)
{
    if (t->but_for[c] != NOWHERE)
        return t->but_for[c];
    struct ways w;
    const struct aside a = aside_begin(k->m);
    ways_begin(k->m, &w);
    make_gap(k, t, &w, 0x20, c - 1);
    make_gap(k, t, &w, c + 1, 0x10FFFF);
    ways_end(k->m, &w);
    return t->but_for[c] = aside_end(k->m, &a);
}

static void make_other_name(struct making *k, struct names *t, size_t from, size_t to, size_t at);

/* Each character that a name of [from, to) goes on with, and what is between those. */
static void make_branches(struct making *k, struct names *t, struct ways *w, size_t from, size_t to, size_t at)
{
    uint32_t next = 0;
    for (size_t i = from, end, n; i < to; i = end) {
        const uint32_t c = character_at(t->sorted[i] + at, &n);
        for (end = i + 1; end < to && strncmp(t->sorted[end] + at, t->sorted[i] + at, n) == 0; end++)
            ;
        if (!is_plain(c))
            continue;
        make_gap(k, t, w, next, c - 1);
        next = c + 1;
        ways_next(k->m, w);
        grammar_characters(k->m, c, c);
        make_other_name(k, t, i, end, at + n);
    }
    make_gap(k, t, w, next, 0x10FFFF);
}

/* What is no name of sorted [from, to), all alike up to byte `at`: it ends where none of them does, goes on where none
 * does, or goes on as some do. */
static void make_other_name(struct making *k, struct names *t, size_t from, size_t to, size_t at)
{
    struct ways w;
    if (k->m->st != ST_OK)
        return;
    ways_begin(k->m, &w);
    if (t->sorted[from][at]) {
        ways_next(k->m, &w);
        grammar_byte(k->m, '"', '"');
    }
    while (from < to && !t->sorted[from][at])
        from++;
    const unsigned char c = from < to ? (unsigned char)t->sorted[from][at] : 0;
    if (c < 0x80 && is_plain(c) && c == (unsigned char)t->sorted[to - 1][at]) {
        const uint32_t others = but_for(k, t, c);
        ways_next(k->m, &w);
        grammar_call(k->m, others);
        ways_next(k->m, &w);
        grammar_byte(k->m, c, c);
        make_other_name(k, t, from, to, at + 1);
    } else {
        make_branches(k, t, &w, from, to, at);
    }
    ways_end(k->m, &w);
}

static int compare(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static status make_name_of_others(struct making *k, const struct properties *p)
{
    struct names t = {.n = p->n};
    if (p->n == 0) {
        call_part(k, PART_STRING);
        return ST_OK;
    }
    if (!(t.sorted = malloc(p->n * sizeof *t.sorted))) {
        log_error("schema: no memory for %zu names", p->n);
        return ST_NOMEM;
    }
    for (size_t i = 0; i < p->n; i++)
        t.sorted[i] = p->all[i].name;
    qsort(t.sorted, t.n, sizeof *t.sorted, compare);
    for (int i = 0; i < 128; i++)
        t.but_for[i] = NOWHERE;
    const uint32_t plain = json_part(k, PART_PLAIN);
    const struct aside a = aside_begin(k->m);
    repeat(k->m, plain, 0, ANY_COUNT, NULL);
    grammar_byte(k->m, '"', '"');
    t.rest = aside_end(k->m, &a);
    grammar_byte(k->m, '"', '"');
    make_other_name(k, &t, 0, t.n, 0);
    free(t.sorted);
    return ST_OK;
}

/* --- members --- */

static status make_value(struct making *k, const json_t *schema, const struct where *at)
{
    grammar_byte(k->m, ':', ':');
    maybe_space(k->m);
    return k->value(k, schema, at);
}

static status make_named(struct making *k, const struct property *p, const struct where *at)
{
    const struct where properties = {at, "properties", 0};
    spell_string(k->m, p->name, strlen(p->name));
    return make_value(k, p->schema, &(struct where){&properties, p->name, 0});
}

/* Ways from one property to the next: with no member written yet, and behind one. Both are ops to be patched to where
 * they lead. */
struct ways_on {
    uint32_t none, some; /* NOWHERE: there is no such way, or it is the op before */
};

/* Appends a property. Behind a member there comes a comma first; both ways lead to the one text of it. */
static status make_property(struct making *k, const struct property *p, size_t i, struct ways_on *on,
                            const struct where *at)
{
    struct grammar_maker *m = k->m;
    uint32_t over = NOWHERE;
    struct ways_on next = {NOWHERE, NOWHERE};
    if (i > 0) {
        grammar_patch(m, on->some, grammar_here(m));
        if (!p->required)
            next.some = maybe(m);
        comma(m);
        if (on->none != NOWHERE)
            over = grammar_jump(m, NOWHERE);
    }
    grammar_patch(m, on->none, grammar_here(m));
    if (on->none != NOWHERE && !p->required)
        next.none = maybe(m);
    grammar_patch(m, over, grammar_here(m));
    *on = next;
    return make_named(k, p, at);
}

/* Appends members with other names, as many as one likes. */
static status make_others(struct making *k, const struct properties *p, struct ways_on *on, const struct where *at)
{
    struct grammar_maker *m = k->m;
    uint32_t over = NOWHERE, none = NOWHERE;
    grammar_patch(m, on->some, grammar_here(m));
    const uint32_t again = maybe(m);
    comma(m);
    if (on->none != NOWHERE) {
        over = grammar_jump(m, NOWHERE);
        grammar_patch(m, on->none, grammar_here(m));
        none = maybe(m);
    }
    grammar_patch(m, over, grammar_here(m));
    status st = make_name_of_others(k, p);
    if (st == ST_OK)
        st = make_value(k, p->others, &(struct where){at, "additionalProperties", 0});
    grammar_jump(m, again);
    *on = (struct ways_on){none, again};
    return st;
}

static status make_members(struct making *k, const struct properties *p, bool not_empty, const struct where *at)
{
    struct grammar_maker *m = k->m;
    struct ways_on on = {.none = grammar_jump(m, NOWHERE), .some = NOWHERE};
    status st = ST_OK;
    for (size_t i = 0; i < p->n && st == ST_OK; i++)
        st = make_property(k, &p->all[i], i, &on, at);
    if (st == ST_OK && p->others)
        st = make_others(k, p, &on, at);
    grammar_patch(m, on.some, grammar_here(m));
    if (!not_empty)
        grammar_patch(m, on.none, grammar_here(m));
    grammar_byte(m, '}', '}');
    if (not_empty && on.none != NOWHERE) {
        const uint32_t over = grammar_jump(m, NOWHERE);
        grammar_patch(m, on.none, grammar_here(m));
        dead_end(m);
        grammar_patch(m, over, grammar_here(m));
    }
    return st;
}

/* --- what the schema says --- */

static bool is_listed(const struct properties *p, const char *name)
{
    for (size_t i = 0; i < p->n; i++)
        if (strcmp(p->all[i].name, name) == 0)
            return true;
    return false;
}

/* The named ones, and those that are required without being named, which are as others must be. Where a schema names
 * properties and says nothing of others, there are none: that is what it was written for. */
static void list_properties(const json_t *flat, struct properties *p)
{
    const json_t *required = json_object_get(flat, "required"), *others = json_object_get(flat, "additionalProperties");
    const char *name;
    json_t *schema;
    json_object_foreach(json_object_get(flat, "properties"), name, schema)
        p->all[p->n++] = (struct property){name, schema, is_required(flat, name)};
    for (size_t i = 0; i < json_array_size(required); i++)
        if (!is_listed(p, json_string_value(json_array_get(required, i))))
            p->all[p->n++] = (struct property){json_string_value(json_array_get(required, i)),
                                               others ? others : json_true(), true};
    p->others = json_is_false(others) || (!others && p->n > 0) ? NULL : others ? others : json_true();
}

/* What a grammar cannot count is refused, but where it is plain. */
static status check_counts(const json_t *flat, const struct properties *p, const struct where *at, bool *not_empty)
{
    const uint64_t least = count_of(flat, "minProperties", 0), most = count_of(flat, "maxProperties", ANY_COUNT);
    uint64_t required = 0;
    for (size_t i = 0; i < p->n; i++)
        required += p->all[i].required;
    *not_empty = least == 1;
    if (least > 1 && least > required)
        return schema_refuse(at, ST_USAGE, "minProperties is not supported beyond 1 and what is required");
    if (most != ANY_COUNT && (p->others || most < p->n))
        return schema_refuse(at, ST_USAGE, "maxProperties is not supported below what there may be");
    return ST_OK;
}

status make_object(struct making *k, const json_t *flat, const struct where *at)
{
    const size_t n_required = json_array_size(json_object_get(flat, "required"));
    const size_t n = json_object_size(json_object_get(flat, "properties")) + n_required;
    struct properties p = {0};
    bool not_empty;
    status st = spend(k, n * (n_required + 1), at);
    if (st != ST_OK)
        return st;
    if (!(p.all = calloc(n + 1, sizeof *p.all))) {
        log_error("schema: no memory for %zu properties", n);
        return ST_NOMEM;
    }
    list_properties(flat, &p);
    if ((st = check_counts(flat, &p, at, &not_empty)) == ST_OK) {
        grammar_byte(k->m, '{', '{');
        st = make_members(k, &p, not_empty, at);
    }
    free(p.all);
    return st;
}
