/* Masks against a slow reading of the same grammar: each token's bytes, one after another, by sets of places with whole
 * stacks. On random programs and vocabularies, and on JSON with a real vocabulary (HEARTH_TEST_MODEL); with memory for
 * next to nothing as well. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/log.h"
#include "sampling/constraint.h"
#include "sampling/constraint_lay.h"
#include "sampling/machine.h"
#include "sampling/philox.h"
#include "tests/unit/alloc_fail.h"
#include "tests/unit/json_grammar.h"
#include "tests/unit/vocabulary.h"

/* --- the slow way --- */

enum { MOST_WAYS = 200 };

struct way {
    uint32_t place, depth;
    uint16_t stack[GRAMMAR_DEPTH];
};

struct reading {
    struct way ways[MOST_WAYS];
    int n;
    bool complete, too_many;
};

static void add(struct reading *r, const struct way *w)
{
    for (int i = 0; i < r->n; i++)
        if (r->ways[i].place == w->place && r->ways[i].depth == w->depth &&
            !memcmp(r->ways[i].stack, w->stack, w->depth * sizeof *w->stack))
            return;
    if (r->n == MOST_WAYS)
        r->too_many = true;
    else
        r->ways[r->n++] = *w;
}

static bool returns_next(const struct grammar *g, uint32_t place)
{
    for (uint32_t hops = 0; hops <= g->n_ops && g->ops[place].kind == GRAMMAR_JUMP; hops++)
        place = g->ops[place].a;
    return g->ops[place].kind == GRAMMAR_RETURN;
}

/* Only the bytes that the ways lead to are left. */
static void settle(const struct grammar *g, struct reading *r)
{
    int n = 0;
    for (int i = 0; i < r->n; i++) {
        struct way w = r->ways[i];
        const struct grammar_op *op = &g->ops[w.place];
        switch (op->kind) {
        case GRAMMAR_SPLIT:
            w.place = op->b;
            add(r, &w);
            w.place = op->a;
            add(r, &w);
            break;
        case GRAMMAR_JUMP:
            w.place = op->a;
            add(r, &w);
            break;
        case GRAMMAR_CALL:
            if (!returns_next(g, w.place + 1)) {
                if (w.depth == GRAMMAR_DEPTH)
                    break;
                w.stack[w.depth++] = (uint16_t)(w.place + 1);
            }
            w.place = op->a;
            add(r, &w);
            break;
        case GRAMMAR_RETURN:
            r->complete |= w.depth == 0;
            if (w.depth > 0) {
                w.place = w.stack[--w.depth];
                add(r, &w);
            }
            break;
        default:
            break;
        }
    }
    for (int i = 0; i < r->n; i++) {
        const struct grammar_op *op = &g->ops[r->ways[i].place];
        if (op->kind == GRAMMAR_BYTE && op->lo <= op->hi)
            r->ways[n++] = r->ways[i];
    }
    r->n = n;
}

static void reading_begin(const struct grammar *g, struct reading *r)
{
    const struct way first = {0};
    r->n = 0;
    r->complete = r->too_many = false;
    add(r, &first);
    settle(g, r);
}

/* next may not be r */
static void reading_byte(const struct grammar *g, const struct reading *r, uint8_t byte, struct reading *next)
{
    next->n = 0;
    next->complete = false;
    next->too_many = r->too_many;
    for (int i = 0; i < r->n; i++) {
        struct way w = r->ways[i];
        if (byte >= g->ops[w.place].lo && byte <= g->ops[w.place].hi) {
            w.place++;
            add(next, &w);
        }
    }
    settle(g, next);
}

static bool alive(const struct reading *r) { return r->n > 0 || r->complete; }

/* The reading after some bytes; in one of the two. */
static struct reading *reading_bytes(const struct grammar *g, struct reading r[2], const char *bytes, size_t n)
{
    size_t i = 0;
    for (; i < n && alive(&r[i % 2]); i++)
        reading_byte(g, &r[i % 2], (uint8_t)bytes[i], &r[(i + 1) % 2]);
    return &r[i % 2];
}

/* --- vocabularies and constraints --- */

struct house { /* of one vocabulary */
    struct vocabulary v; /* not of a file's */
    struct token_trie *trie;
    struct arena arena;
    struct constraint *large, *small;
};

static struct constraint *lay(struct house *h, uint32_t most_states, struct arena *a)
{
    return constraint_lay_states(h->trie, GRAMMAR_OPS, most_states, a);
}

static void house_begin(struct house *h, const struct tokenizer *t)
{
    struct arena dry;
    assert_int_equal(token_trie_create(t, &h->trie), ST_OK);
    assert_int_equal(token_trie_n_vocab(h->trie), tokenizer_n_vocab(t));
    arena_dry(&dry);
    assert_null(lay(h, MACHINE_STATES, &dry));
    assert_null(lay(h, MACHINE_STATES_MIN, &dry));
    assert_int_equal(arena_map(&h->arena, dry.used), ST_OK);
    h->large = lay(h, MACHINE_STATES, &h->arena);
    h->small = lay(h, MACHINE_STATES_MIN, &h->arena);
    assert_true(h->large && h->small);
}

static void house_end(struct house *h)
{
    token_trie_free(h->trie);
    arena_unmap(&h->arena);
}

static bool has(const uint64_t *mask, int32_t token) { return mask[token / 64] >> token % 64 & 1; }

static size_t text_of(const struct tokenizer *t, int32_t token, char out[1024])
{
    size_t n = tokenizer_is_end(t, token) ? 0 : tokenizer_piece(t, token, false, out, 1023);
    if (n == 0 && !tokenizer_is_end(t, token)) {
        n = tokenizer_piece(t, token, true, out + 1, 1023);
        out[0] = (char)GRAMMAR_CONTROL;
        n += n > 0;
    }
    return n;
}

/* A constraint's mask against a reading; false: there were too many ways to know. */
static bool check_mask(const struct grammar *g, const struct tokenizer *t, const struct reading *at,
                       struct constraint *c)
{
    static struct reading r[2];
    const int32_t n_vocab = tokenizer_n_vocab(t);
    const uint64_t *mask = constraint_mask(c);
    char text[1024];
    bool any = false;
    assert_int_equal(constraint_complete(c), at->complete);
    for (int32_t i = 0; i < n_vocab; i++) {
        const size_t n = text_of(t, i, text);
        if (tokenizer_is_end(t, i))
            continue;
        r[0].n = at->n;
        r[0].complete = at->complete;
        r[0].too_many = at->too_many;
        memcpy(r[0].ways, at->ways, (size_t)at->n * sizeof *at->ways);
        const struct reading *after = reading_bytes(g, r, text, n);
        if (after->too_many)
            return false;
        const bool may = n > 0 && n <= 255 && alive(after);
        any |= may;
        if (has(mask, i) != may)
            fail_msg("token %d '%.*s' is %d, expected %d", i, (int)n, text, !may, may);
    }
    for (int32_t i = 0; i < n_vocab; i++)
        if (tokenizer_is_end(t, i))
            assert_int_equal(has(mask, i), at->complete || !any);
    for (int32_t i = n_vocab; i < (n_vocab + 63) / 64 * 64; i++)
        assert_false(has(mask, i));
    return true;
}

/* --- random programs --- */

static uint32_t rng;

static uint32_t draw(uint32_t n)
{
    uint32_t r[4];
    philox4x32((uint32_t[]){rng++, 0, 0, 0}, (uint32_t[]){7, 7}, r);
    return r[0] % n;
}

static const char letters[] = "ab\"\\ 0\n\x7F\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80\xFF";

static uint8_t draw_byte(void)
{
    const uint32_t first = draw(3); /* some are more frequent, so that texts meet */
    return (uint8_t)letters[draw(first == 0 ? sizeof letters - 1 : first == 1 ? 6 : 2)];
}

/* Words that differ: some of whole characters, some of anything. */
static void make_words(struct house *h)
{
    enum { N = 150 };
    static const char *const characters[] = {"a", "b", " ", "0", "\xC3\xA9", "\xE2\x82\xAC", "\xF0\x9F\x98\x80"};
    static char bytes[N][40];
    struct word words[N];
    size_t n = 0;
    words[n++] = (struct word){"<|end|>", 7, WORD_CONTROL};
    words[n++] = (struct word){"<|im_end|>", 10, WORD_CONTROL};
    words[n++] = (struct word){"aa", 2, WORD_CONTROL};
    words[n++] = (struct word){" ab", 3, WORD_USER}; /* one that prints the same may come */
    words[n++] = (struct word){"", 0, WORD_NORMAL};
    words[n++] = (struct word){" ab", 3, WORD_NORMAL};
    words[n++] = (struct word){"bbbbbbbbbbbbbbbb", 16, WORD_NORMAL}; /* the longest plain one, and one that is not */
    words[n++] = (struct word){"bbbbbbbbbbbbbbbbb", 17, WORD_NORMAL};
    while (n < N) {
        struct word w = {bytes[n], 0, WORD_NORMAL};
        const bool whole = draw(2), long_one = draw(8) == 0;
        for (uint32_t i = 0, most = 1 + draw(long_one ? 20 : 4); i < most && w.n < 30; i++) {
            const char *c = whole ? characters[draw(7)] : NULL;
            if (whole) {
                memcpy(bytes[n] + w.n, c, strlen(c));
                w.n += strlen(c);
            } else {
                bytes[n][w.n++] = (char)draw_byte();
            }
        }
        bool again = false;
        for (size_t i = 4; i < n; i++)
            again |= words[i].n == w.n && !memcmp(words[i].bytes, w.bytes, w.n);
        if (!again && !(w.n == 2 && !memcmp(w.bytes, "aa", 2)))
            words[n++] = w;
    }
    vocabulary_make(&h->v, words, n, 0);
}

static struct grammar draw_program(struct grammar_op *ops)
{
    const struct grammar g = {ops, 1 + draw(24)};
    for (uint32_t i = 0; i < g.n_ops; i++) {
        static const uint8_t kinds[] = {GRAMMAR_RETURN, GRAMMAR_JUMP, GRAMMAR_SPLIT, GRAMMAR_SPLIT,
                                        GRAMMAR_CALL,   GRAMMAR_BYTE, GRAMMAR_BYTE,  GRAMMAR_BYTE};
        const uint8_t kind = kinds[draw(i + 1 == g.n_ops ? 3 : 8)];
        const uint8_t lo = draw_byte(), hi = draw(3) ? lo : (uint8_t)(lo + draw(120));
        const bool byte = kind == GRAMMAR_BYTE;
        ops[i] = (struct grammar_op){kind, byte ? lo : 0, byte ? hi : 0, draw(g.n_ops), draw(g.n_ops)};
    }
    return g;
}

static int32_t draw_allowed(const uint64_t *mask, int32_t n_vocab)
{
    int32_t token = -1;
    for (int32_t i = 0, n = 0; i < n_vocab; i++)
        if (has(mask, i) && draw((uint32_t)++n) == 0)
            token = i;
    return token;
}

/* Writes a random text under both constraints. How many masks were right. */
static int write_text(struct house *h, const struct grammar *g, int most_tokens)
{
    static struct reading r[2];
    struct reading *at = &r[0];
    const struct tokenizer *t = h->v.t;
    char text[1024];
    int n = 0;
    constraint_begin(h->large, g);
    constraint_begin(h->small, g);
    reading_begin(g, at);
    for (; n < most_tokens && !at->too_many; n++) {
        if (!check_mask(g, t, at, h->large))
            break;
        check_mask(g, t, at, h->small);
        const int32_t token = draw_allowed(constraint_mask(h->large), tokenizer_n_vocab(t));
        if (token < 0 || tokenizer_is_end(t, token))
            return n + 1;
        constraint_accept(h->large, token);
        constraint_accept(h->small, token);
        const size_t bytes = text_of(t, token, text);
        if (at != &r[0])
            memcpy(&r[0], at, sizeof r[0]);
        at = reading_bytes(g, r, text, bytes);
    }
    return n;
}

static void test_random_programs(void **state)
{
    (void)state;
    struct grammar_op ops[24];
    int n_masks = 0, n_long = 0;
    for (int round = 0; round < 8; round++) {
        struct house h;
        make_words(&h);
        house_begin(&h, h.v.t);
        for (int i = 0; i < 150; i++) {
            const struct grammar g = draw_program(ops);
            assert_int_equal(grammar_check(&g), ST_OK);
            const int n = write_text(&h, &g, 5);
            n_masks += n;
            n_long += n >= 3;
        }
        house_end(&h);
        vocabulary_free(&h.v);
    }
    assert_true(n_masks > 2000 && n_long > 250); /* most programs lead somewhere */
}

/* Strings of at most so many characters: masks where all plain tokens are allowed, and near the end where not all are.
 * */
static void test_bounded_strings(void **state)
{
    (void)state;
    struct house h;
    make_words(&h);
    house_begin(&h, h.v.t);
    for (uint32_t most = 0; most <= 36; most += 2) {
        struct grammar_maker m = {0};
        struct json_rules r;
        struct grammar g;
        const uint32_t begin = grammar_jump(&m, UINT32_MAX);
        uint32_t ends[36];
        r.character = json_character_rule(&m);
        grammar_patch(&m, begin, grammar_here(&m));
        for (uint32_t i = 0; i < most; i++) {
            ends[i] = json_perhaps(&m);
            grammar_call(&m, r.character);
        }
        for (uint32_t i = 0; i < most; i++)
            grammar_patch(&m, ends[i], grammar_here(&m));
        json_text(&m, "\"");
        grammar_return(&m);
        assert_int_equal(grammar_made(&m, &g), ST_OK);
        for (int i = 0; i < 6; i++)
            assert_true(write_text(&h, &g, 8) > 0);
        free((void *)g.ops);
    }
    house_end(&h);
    vocabulary_free(&h.v);
}

/* Strings of all characters but one: not all plain tokens are allowed, whichever it is. */
static void test_all_but_one(void **state)
{
    (void)state;
    static const uint32_t one[] = {
        ' ',    '!',    '#',    'a',    '[',    ']',    '~',     0x80,    0x7FF,   0x800,   0xFFF,    0x1000,
        0xCFFF, 0xD000, 0xD7FF, 0xE000, 0xFFFF, 0x10000, 0x3FFFF, 0x40000, 0xFFFFF, 0x100000, 0x10FFFF};
    enum { N = sizeof one / sizeof *one };
    static char bytes[N][4];
    struct word words[N + 1] = {{"<|end|>", 7, WORD_CONTROL}};
    struct house h;
    struct grammar g = {0};
    for (int i = 0; i < N; i++) { /* what a grammar of one character reads is its bytes */
        struct grammar_maker m = {0};
        grammar_characters(&m, one[i], one[i]);
        for (uint32_t k = 0; k < m.n; k++)
            bytes[i][k] = (char)m.ops[k].lo;
        words[1 + i] = (struct word){bytes[i], m.n, WORD_NORMAL};
        grammar_drop(&m);
    }
    vocabulary_make(&h.v, words, N + 1, 0);
    house_begin(&h, h.v.t);
    for (int i = 0; i < N; i++) {
        struct grammar_maker m = {0};
        const uint32_t end = json_perhaps(&m), other = json_perhaps(&m);
        grammar_characters(&m, 0, one[i] - 1);
        grammar_jump(&m, end);
        grammar_patch(&m, other, grammar_here(&m));
        grammar_characters(&m, one[i] + 1, 0x10FFFF);
        grammar_jump(&m, end);
        grammar_patch(&m, end, grammar_return(&m));
        assert_int_equal(grammar_made(&m, &g), ST_OK);
        assert_true(write_text(&h, &g, 3) > 0);
        constraint_begin(h.large, &g);
        for (int k = 0; k < N; k++)
            assert_int_equal(has(constraint_mask(h.large), 1 + k), k != i);
        free((void *)g.ops);
    }
    house_end(&h);
    vocabulary_free(&h.v);
}

/* --- some words and grammars by hand --- */

enum { END, TURN, TOOL, A, B, OPEN, CLOSE, AA, LONG, PLUS, N_HAND };

static struct word hand_words[N_HAND] = {
    [END] = {"<|end|>", 7, WORD_CONTROL}, [TURN] = {"<|im_end|>", 10, WORD_CONTROL},
    [TOOL] = {"<|tool|>", 8, WORD_CONTROL}, [A] = {"a", 1, WORD_NORMAL}, [B] = {"b", 1, WORD_NORMAL},
    [OPEN] = {"(", 1, WORD_NORMAL}, [CLOSE] = {")", 1, WORD_NORMAL}, [AA] = {"aa", 2, WORD_NORMAL},
    [LONG] = {NULL, 300, WORD_NORMAL}, [PLUS] = {"+", 1, WORD_NORMAL}};

static int hand_begin(void **state)
{
    static char many[300];
    struct house *h = calloc(1, sizeof *h);
    memset(many, 'a', sizeof many);
    hand_words[LONG].bytes = many;
    vocabulary_make(&h->v, hand_words, N_HAND, END);
    house_begin(h, h->v.t);
    *state = h;
    return 0;
}

static int hand_end(void **state)
{
    struct house *h = *state;
    house_end(h);
    vocabulary_free(&h->v);
    free(h);
    return 0;
}

/* Whether just these bits of tokens are allowed. */
static void assert_allowed(struct constraint *c, uint32_t bits)
{
    assert_int_equal(*constraint_mask(c), bits);
}

static const uint32_t ends = 1 << END | 1 << TURN;

static void test_ends(void **state)
{
    struct house *h = *state;
    struct constraint *c = h->large;
    /* a(aa)* */
    const struct grammar_op ops[] = {{.kind = GRAMMAR_BYTE, .lo = 'a', .hi = 'a'},
                                     {.kind = GRAMMAR_SPLIT, .a = 2, .b = 5},
                                     {.kind = GRAMMAR_BYTE, .lo = 'a', .hi = 'a'},
                                     {.kind = GRAMMAR_BYTE, .lo = 'a', .hi = 'a'},
                                     {.kind = GRAMMAR_JUMP, .a = 1},
                                     {.kind = GRAMMAR_RETURN}};
    const struct grammar_op other[] = {{.kind = GRAMMAR_BYTE, .lo = 'z', .hi = 'z'}, {.kind = GRAMMAR_RETURN}};
    const struct grammar g = {ops, 6}, z = {other, 2};
    assert_allowed(c, ends); /* no grammar yet */
    assert_false(constraint_complete(c));
    constraint_begin(c, &g);
    assert_allowed(c, 1 << A | 1 << AA);
    assert_false(constraint_complete(c));
    constraint_accept(c, A);
    assert_allowed(c, 1 << A | 1 << AA | ends);
    assert_true(constraint_complete(c));
    constraint_accept(c, TURN); /* says nothing */
    assert_allowed(c, 1 << A | 1 << AA | ends);
    constraint_accept(c, LONG); /* even it is no longer allowed, and still read */
    assert_allowed(c, 1 << A | 1 << AA | ends);
    constraint_accept(c, AA);
    constraint_accept(c, A);
    assert_allowed(c, 1 << A | 1 << AA);
    constraint_accept(c, B); /* leaves the grammar */
    assert_allowed(c, ends);
    assert_false(constraint_complete(c));
    constraint_accept(c, A);
    assert_allowed(c, ends);
    for (int32_t none = -1; none <= N_HAND; none += N_HAND + 1) {
        constraint_begin(c, &g);
        constraint_accept(c, A);
        constraint_accept(c, none);
        assert_allowed(c, ends);
        assert_false(constraint_complete(c));
    }
    constraint_begin(c, &z); /* of which no token is */
    assert_allowed(c, ends);
    assert_false(constraint_complete(c));
}

static void test_control_tokens(void **state)
{
    struct house *h = *state;
    static const char *const names[] = {"\xFF<|tool|>", "\xFF<|end|>", "<|tool|>"};
    for (int i = 0; i < 3; i++) {
        struct grammar_maker m = {0};
        struct grammar g;
        json_text(&m, names[i]);
        json_text(&m, "a");
        grammar_return(&m);
        assert_int_equal(grammar_made(&m, &g), ST_OK);
        constraint_begin(h->large, &g);
        assert_allowed(h->large, i == 0 ? 1 << TOOL : ends); /* what ends an answer is no text, in any grammar */
        constraint_accept(h->large, TOOL);
        assert_allowed(h->large, i == 0 ? 1 << A : ends);
        free((void *)g.ops);
    }
}

/* ( ( ... ) ): one call for each that is open. */
static void test_depth(void **state)
{
    struct house *h = *state;
    const struct grammar_op ops[] = {{.kind = GRAMMAR_SPLIT, .a = 1, .b = 4},
                                     {.kind = GRAMMAR_BYTE, .lo = '(', .hi = '('},
                                     {.kind = GRAMMAR_CALL, .a = 0},
                                     {.kind = GRAMMAR_BYTE, .lo = ')', .hi = ')'},
                                     {.kind = GRAMMAR_RETURN}};
    const struct grammar g = {ops, 5};
    struct constraint *both[] = {h->large, h->small};
    for (int k = 0; k < 2; k++) {
        struct constraint *c = both[k];
        constraint_begin(c, &g);
        for (int i = 0; i < GRAMMAR_DEPTH; i++) {
            assert_allowed(c, 1 << OPEN | (i ? 1 << CLOSE : ends));
            constraint_accept(c, OPEN);
        }
        for (int i = 0; i < GRAMMAR_DEPTH; i++) {
            assert_false(constraint_complete(c));
            assert_allowed(c, 1 << CLOSE);
            constraint_accept(c, CLOSE);
        }
        assert_allowed(c, ends);
        assert_true(constraint_complete(c));
    }
}

/* A rule that ends with itself needs nothing to come back to. */
static void test_right_recursion(void **state)
{
    struct house *h = *state;
    const struct grammar_op ops[] = {{.kind = GRAMMAR_BYTE, .lo = 'a', .hi = 'a'},
                                     {.kind = GRAMMAR_SPLIT, .a = 2, .b = 4},
                                     {.kind = GRAMMAR_CALL, .a = 0},
                                     {.kind = GRAMMAR_JUMP, .a = 4},
                                     {.kind = GRAMMAR_RETURN}};
    constraint_begin(h->large, &(struct grammar){ops, 5});
    for (int i = 0; i < 20 * GRAMMAR_DEPTH; i++) {
        constraint_accept(h->large, A);
        assert_allowed(h->large, 1 << A | 1 << AA | ends);
    }
}

/* Rules that come back to where they were without a byte end, and mean what they say. */
static void test_circles(void **state)
{
    struct house *h = *state;
    enum { J = GRAMMAR_JUMP, S = GRAMMAR_SPLIT, C = GRAMMAR_CALL, R = GRAMMAR_RETURN, BYTE = GRAMMAR_BYTE };
    const struct {
        struct grammar_op ops[8];
        uint32_t n, first, then; /* what is allowed; and behind an a */
    } cases[] = {
        {{{J, 0, 0, 0, 0}}, 1, ends, ends},
        {{{J, 0, 0, 1, 0}, {J, 0, 0, 2, 0}, {J, 0, 0, 1, 0}}, 3, ends, ends},
        {{{S, 0, 0, 1, 2}, {J, 0, 0, 0, 0}, {BYTE, 'a', 'a', 0, 0}, {R, 0, 0, 0, 0}}, 4, 1 << A, ends},
        {{{C, 0, 0, 0, 0}, {BYTE, 'a', 'a', 0, 0}, {R, 0, 0, 0, 0}}, 3, ends, ends},
        {{{C, 0, 0, 0, 0}, {R, 0, 0, 0, 0}}, 2, ends, ends},
        /* (a*)*: both loops may be empty */
        {{{S, 0, 0, 1, 5}, {C, 0, 0, 3, 0}, {J, 0, 0, 0, 0}, {S, 0, 0, 6, 4}, {R, 0, 0, 0, 0}, {R, 0, 0, 0, 0},
          {BYTE, 'a', 'a', 0, 0}, {J, 0, 0, 3, 0}}, 8, 1 << A | 1 << AA | ends, 1 << A | 1 << AA | ends},
        /* sum = sum + a | a */
        {{{S, 0, 0, 1, 4}, {C, 0, 0, 0, 0}, {BYTE, '+', '+', 0, 0}, {J, 0, 0, 4, 0}, {BYTE, 'a', 'a', 0, 0},
          {R, 0, 0, 0, 0}}, 6, 1 << A, 1 << PLUS | ends},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct grammar g = {cases[i].ops, cases[i].n};
        assert_int_equal(grammar_check(&g), ST_OK);
        constraint_begin(h->large, &g);
        assert_allowed(h->large, cases[i].first);
        constraint_accept(h->large, A);
        assert_allowed(h->large, cases[i].then);
    }
}

/* Twice as many ways to read it with each byte: bounded, and the same however little is remembered. */
static void test_ambiguous(void **state)
{
    struct house *h = *state;
    /* s = ( s ) | ( s ) | a; s + s */
    const struct grammar_op ops[] = {
        {.kind = GRAMMAR_CALL, .a = 4},
        {.kind = GRAMMAR_BYTE, .lo = '+', .hi = '+'},
        {.kind = GRAMMAR_CALL, .a = 4},
        {.kind = GRAMMAR_RETURN},
        {.kind = GRAMMAR_SPLIT, .a = 5, .b = 9},
        {.kind = GRAMMAR_BYTE, .lo = '(', .hi = '('},
        {.kind = GRAMMAR_CALL, .a = 4},
        {.kind = GRAMMAR_BYTE, .lo = ')', .hi = ')'},
        {.kind = GRAMMAR_RETURN},
        {.kind = GRAMMAR_SPLIT, .a = 10, .b = 14},
        {.kind = GRAMMAR_BYTE, .lo = '(', .hi = '('},
        {.kind = GRAMMAR_CALL, .a = 4},
        {.kind = GRAMMAR_BYTE, .lo = ')', .hi = ')'},
        {.kind = GRAMMAR_RETURN},
        {.kind = GRAMMAR_BYTE, .lo = 'a', .hi = 'a'},
        {.kind = GRAMMAR_RETURN},
    };
    const struct grammar g = {ops, sizeof ops / sizeof *ops};
    assert_int_equal(grammar_check(&g), ST_OK);
    constraint_begin(h->large, &g);
    constraint_begin(h->small, &g);
    for (int i = 0; i < 40; i++) {
        assert_allowed(h->large, 1 << OPEN | 1 << A);
        assert_allowed(h->small, 1 << OPEN | 1 << A);
        constraint_accept(h->large, OPEN);
        constraint_accept(h->small, OPEN);
    }
    constraint_accept(h->large, A);
    constraint_accept(h->small, A);
    for (int i = 0; i < 40; i++) {
        assert_int_equal(*constraint_mask(h->large), *constraint_mask(h->small));
        constraint_accept(h->large, CLOSE);
        constraint_accept(h->small, CLOSE);
    }
    assert_int_equal(*constraint_mask(h->large), *constraint_mask(h->small));
}

static void test_no_memory(void **state)
{
    struct house *h = *state;
    long n = 0;
    for (;; n++) {
        struct log_catcher lines;
        struct token_trie *t = NULL;
        log_catch(&lines);
        alloc_fail_at(n);
        const status st = token_trie_create(h->v.t, &t);
        const bool failed = alloc_failed();
        log_catch(NULL);
        assert_int_equal(st, failed ? ST_NOMEM : ST_OK);
        assert_int_equal(lines.first_error[0] != '\0', failed);
        assert_int_equal(t == NULL, failed);
        token_trie_free(t);
        if (!failed)
            break;
    }
    assert_true(n >= 8);
    token_trie_free(NULL);
}

/* --- a real vocabulary --- */

static void test_real_vocabulary(void **state)
{
    (void)state;
    static const char text[] = "{\"name\": \"B\xC3\xA9z\\n out\",\"n\":[-1, 2.5e3]}";
    static const size_t where[] = {0, 1, 10, 13, 20, 24, 33, sizeof text - 1};
    static struct reading r[2];
    const char *model = getenv("HEARTH_TEST_MODEL");
    struct gguf *file;
    struct tokenizer *t;
    struct house h;
    if (!model || gguf_open(model, &file) != ST_OK) {
        print_message("SKIP: HEARTH_TEST_MODEL names no readable SmolLM2-135M-Instruct\n");
        skip();
    }
    assert_int_equal(tokenizer_create(file, &t), ST_OK);
    house_begin(&h, t);
    const struct grammar g = json_grammar();
    for (size_t i = 0; i < sizeof where / sizeof *where; i++) {
        int32_t *ids;
        size_t n_ids;
        assert_int_equal(tokenizer_encode(t, text, where[i], false, false, &ids, &n_ids), ST_OK);
        constraint_begin(h.large, &g);
        constraint_begin(h.small, &g);
        for (size_t k = 0; k < n_ids; k++) {
            assert_true(has(constraint_mask(h.large), ids[k]));
            constraint_accept(h.large, ids[k]);
            constraint_accept(h.small, ids[k]);
        }
        free(ids);
        reading_begin(&g, &r[0]);
        const struct reading *at = reading_bytes(&g, r, text, where[i]);
        assert_true(check_mask(&g, t, at, h.large));
        assert_true(check_mask(&g, t, at, h.small));
    }
    free((void *)g.ops);
    house_end(&h);
    tokenizer_free(t);
    gguf_close(file);
}

#define BY_HAND(test) cmocka_unit_test_setup_teardown(test, hand_begin, hand_end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_programs),
        cmocka_unit_test(test_bounded_strings),
        cmocka_unit_test(test_all_but_one),
        BY_HAND(test_ends),
        BY_HAND(test_control_tokens),
        BY_HAND(test_depth),
        BY_HAND(test_right_recursion),
        BY_HAND(test_circles),
        BY_HAND(test_ambiguous),
        BY_HAND(test_no_memory),
        cmocka_unit_test(test_real_vocabulary),
    };
    return cmocka_run_group_tests_name("constraint", tests, NULL, NULL);
}
