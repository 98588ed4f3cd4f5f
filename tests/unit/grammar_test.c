/* Grammars: what the check refuses, and what the maker makes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/log.h"
#include "sampling/grammar.h"
#include "tests/unit/alloc_fail.h"
#include "tests/unit/json_grammar.h"

static status check(const struct grammar_op *ops, uint32_t n)
{
    struct log_catcher lines;
    const struct grammar g = {ops, n};
    log_catch(&lines);
    const status st = grammar_check(&g);
    log_catch(NULL);
    assert_int_equal(st == ST_OK, lines.first_error[0] == '\0');
    return st;
}

static void test_check(void **state)
{
    (void)state;
    const struct grammar_op end = {.kind = GRAMMAR_RETURN};
    const struct grammar_op good[] = {
        {.kind = GRAMMAR_CALL, .a = 3}, {.kind = GRAMMAR_SPLIT, .a = 0, .b = 4}, {.kind = GRAMMAR_JUMP, .a = 4},
        {.kind = GRAMMAR_BYTE, .lo = 9, .hi = 1, .a = 99}, {.kind = GRAMMAR_RETURN, .b = 99}};
    const struct {
        struct grammar_op op;
        status before_end, at_end; /* of what it is when it is the first of two, or the last one */
    } cases[] = {
        {{.kind = GRAMMAR_BYTE}, ST_OK, ST_FORMAT},
        {{.kind = GRAMMAR_RETURN}, ST_OK, ST_OK},
        {{.kind = GRAMMAR_JUMP, .a = 0}, ST_OK, ST_OK},
        {{.kind = GRAMMAR_JUMP, .a = 2}, ST_FORMAT, ST_FORMAT},
        {{.kind = GRAMMAR_JUMP, .a = UINT32_MAX}, ST_FORMAT, ST_FORMAT},
        {{.kind = GRAMMAR_CALL, .a = 0}, ST_OK, ST_FORMAT},
        {{.kind = GRAMMAR_CALL, .a = 2}, ST_FORMAT, ST_FORMAT},
        {{.kind = GRAMMAR_SPLIT, .a = 1, .b = 0}, ST_OK, ST_OK},
        {{.kind = GRAMMAR_SPLIT, .a = 2, .b = 0}, ST_FORMAT, ST_FORMAT},
        {{.kind = GRAMMAR_SPLIT, .a = 0, .b = 2}, ST_FORMAT, ST_FORMAT},
        {{.kind = GRAMMAR_KINDS}, ST_FORMAT, ST_FORMAT},
        {{.kind = 0xFF}, ST_FORMAT, ST_FORMAT},
    };
    assert_int_equal(check(good, 5), ST_OK);
    assert_int_equal(check(good, 0), ST_FORMAT);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(check((struct grammar_op[]){cases[i].op, end}, 2), cases[i].before_end);
        assert_int_equal(check((struct grammar_op[]){end, cases[i].op}, 2), cases[i].at_end);
    }
}

static void test_check_size(void **state)
{
    (void)state;
    struct grammar_op *ops = calloc(GRAMMAR_OPS + 1, sizeof *ops);
    for (uint32_t i = 0; i <= GRAMMAR_OPS; i++)
        ops[i].kind = GRAMMAR_RETURN;
    assert_int_equal(check(ops, GRAMMAR_OPS), ST_OK);
    assert_int_equal(check(ops, GRAMMAR_OPS + 1), ST_FORMAT);
    assert_int_equal(check(ops, UINT32_MAX), ST_FORMAT);
    free(ops);
}

static bool same_op(const struct grammar_op *op, enum grammar_kind kind, int lo, int hi, uint32_t a, uint32_t b)
{
    return op->kind == kind && op->lo == lo && op->hi == hi && op->a == a && op->b == b;
}

static void test_maker(void **state)
{
    (void)state;
    struct grammar_maker m = {0};
    struct grammar g;
    assert_int_equal(grammar_here(&m), 0);
    assert_int_equal(grammar_split(&m, 1, UINT32_MAX), 0);
    grammar_text(&m, "a\0", 2);
    assert_int_equal(grammar_here(&m), 3);
    assert_int_equal(grammar_byte(&m, 3, 200), 3);
    assert_int_equal(grammar_call(&m, UINT32_MAX), 4);
    assert_int_equal(grammar_jump(&m, 0), 5);
    assert_int_equal(grammar_return(&m), 6);
    grammar_patch(&m, 0, 6);
    grammar_patch(&m, 4, 5);
    grammar_patch(&m, 5, 3); /* nothing to fill in */
    grammar_patch(&m, 7, 3); /* no such place */
    assert_int_equal(grammar_made(&m, &g), ST_OK);
    assert_null(m.ops);
    assert_int_equal(g.n_ops, 7);
    assert_true(same_op(&g.ops[0], GRAMMAR_SPLIT, 0, 0, 1, 6));
    assert_true(same_op(&g.ops[1], GRAMMAR_BYTE, 'a', 'a', 0, 0));
    assert_true(same_op(&g.ops[2], GRAMMAR_BYTE, 0, 0, 0, 0));
    assert_true(same_op(&g.ops[3], GRAMMAR_BYTE, 3, 200, 0, 0));
    assert_true(same_op(&g.ops[4], GRAMMAR_CALL, 0, 0, 5, 0));
    assert_true(same_op(&g.ops[5], GRAMMAR_JUMP, 0, 0, 0, 0));
    assert_true(same_op(&g.ops[6], GRAMMAR_RETURN, 0, 0, 0, 0));
    free((void *)g.ops);
}

static status made_quietly(struct grammar_maker *m, struct grammar *out)
{
    struct log_catcher lines;
    log_catch(&lines);
    const status st = grammar_made(m, out);
    log_catch(NULL);
    return st;
}

static void test_maker_refuses(void **state)
{
    (void)state;
    struct grammar_maker m = {0};
    struct grammar g = {NULL, 77};
    struct log_catcher lines;
    assert_int_equal(made_quietly(&m, &g), ST_FORMAT); /* nothing in it */
    grammar_jump(&m, UINT32_MAX);
    assert_int_equal(made_quietly(&m, &g), ST_FORMAT); /* not patched */
    log_catch(&lines);
    for (int i = 0; i < GRAMMAR_OPS; i++)
        grammar_return(&m);
    assert_int_equal(m.st, ST_OK);
    assert_int_equal(lines.first_error[0], '\0');
    grammar_return(&m);
    assert_int_equal(m.st, ST_FULL);
    assert_int_not_equal(lines.first_error[0], '\0');
    log_catch(&lines); /* what comes behind a failure is not said again */
    grammar_characters(&m, 0, 0x10FFFF);
    grammar_patch(&m, 0, 0);
    assert_int_equal(grammar_here(&m), GRAMMAR_OPS);
    assert_int_equal(grammar_made(&m, &g), ST_FULL);
    assert_int_equal(lines.first_error[0], '\0');
    log_catch(NULL);
    assert_null(m.ops);
    assert_int_equal(m.st, ST_OK);
    assert_int_equal(g.n_ops, 77);
    grammar_return(&m);
    grammar_drop(&m);
    assert_null(m.ops);
}

static void test_no_memory(void **state)
{
    (void)state;
    long n = 0;
    for (;; n++) {
        struct grammar_maker m = {0};
        struct json_rules r;
        struct grammar g;
        struct log_catcher lines;
        log_catch(&lines);
        alloc_fail_at(n);
        json_rules(&m, &r);
        const status st = grammar_made(&m, &g);
        const bool failed = alloc_failed();
        log_catch(NULL);
        assert_int_equal(st, failed ? ST_NOMEM : ST_OK);
        assert_int_equal(lines.first_error[0] != '\0', failed);
        if (!failed) {
            free((void *)g.ops);
            break;
        }
    }
    assert_true(n > 1);
}

/* --- characters --- */

/* Whether a program without calls and circles, from a place on, reads exactly these bytes. */
static bool reads(const struct grammar *g, uint32_t place, const uint8_t *bytes, size_t n)
{
    for (;;) {
        const struct grammar_op *op = &g->ops[place];
        switch (op->kind) {
        case GRAMMAR_BYTE:
            if (n == 0 || *bytes < op->lo || *bytes > op->hi)
                return false;
            bytes++;
            n--;
            place++;
            break;
        case GRAMMAR_JUMP:
            place = op->a;
            break;
        case GRAMMAR_SPLIT:
            if (reads(g, op->a, bytes, n))
                return true;
            place = op->b;
            break;
        default:
            return n == 0;
        }
    }
}

static size_t utf8(uint32_t c, size_t n, uint8_t out[4])
{
    static const uint8_t marks[] = {0, 0, 0xC0, 0xE0, 0xF0};
    for (size_t i = n; i-- > 1; c >>= 6)
        out[i] = 0x80 | (c & 0x3F);
    out[0] = (uint8_t)(marks[n] | c);
    return n;
}

static size_t shortest(uint32_t c) { return c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4; }

static struct grammar characters(uint32_t lo, uint32_t hi)
{
    struct grammar_maker m = {0};
    struct grammar g = {0};
    grammar_characters(&m, lo, hi);
    grammar_return(&m);
    assert_int_equal(grammar_made(&m, &g), ST_OK);
    return g;
}

static void check_character(const struct grammar *g, uint32_t c, uint32_t lo, uint32_t hi)
{
    uint8_t bytes[5];
    const bool is = c >= lo && c <= hi && c <= 0x10FFFF && (c < 0xD800 || c > 0xDFFF);
    size_t n = utf8(c, shortest(c), bytes);
    if (reads(g, 0, bytes, n) != is)
        fail_msg("%x of %x .. %x", c, lo, hi);
    bytes[n] = 0x80;
    assert_false(reads(g, 0, bytes, n - 1));
    assert_false(reads(g, 0, bytes, n + 1));
    for (; n < 4; n++) /* longer than need be */
        assert_false(reads(g, 0, bytes, utf8(c, n + 1, bytes)));
}

static void test_characters(void **state)
{
    (void)state;
    static const uint32_t ends[] = {
        0,      1,      0x41,   0x7E,   0x7F,    0x80,    0xBF,    0xC0,    0x3FF,    0x7FF,    0x800,
        0xFFF,  0x1000, 0x1234, 0xCFFF, 0xD7FF,  0xD800,  0xDABC,  0xDFFF,  0xE000,   0xFFFF,   0x10000,
        0x1F600, 0x3FFFF, 0x40000, 0xFFFFF, 0x100000, 0x10FFFE, 0x10FFFF, 0x110000, 0x1FFFFF};
    enum { N = sizeof ends / sizeof *ends };
    for (int i = 0; i < N; i++)
        for (int k = 0; k < N; k++) { /* where lo > hi there are none */
            const struct grammar g = characters(ends[i], ends[k]);
            for (int e = 0; e < N; e++)
                for (int d = -1; d <= 1; d++)
                    if (ends[e] + (uint32_t)d <= 0x1FFFFF)
                        check_character(&g, ends[e] + (uint32_t)d, ends[i], ends[k]);
            free((void *)g.ops);
        }
    const struct grammar g = characters(0, 0x10FFFF), some = characters(0x345, 0x12345);
    for (uint32_t c = 0; c <= 0x10FFFF; c += 7) {
        check_character(&g, c, 0, 0x10FFFF);
        check_character(&some, c, 0x345, 0x12345);
    }
    free((void *)g.ops);
    free((void *)some.ops);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_check),         cmocka_unit_test(test_check_size), cmocka_unit_test(test_maker),
        cmocka_unit_test(test_maker_refuses), cmocka_unit_test(test_no_memory),  cmocka_unit_test(test_characters),
    };
    return cmocka_run_group_tests_name("grammar", tests, NULL, NULL);
}
