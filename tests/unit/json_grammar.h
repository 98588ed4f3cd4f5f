/* The grammar of any JSON value, for tests: compact but for one space that may be behind ':' and ','. */
#ifndef HEARTH_TESTS_JSON_GRAMMAR_H
#define HEARTH_TESTS_JSON_GRAMMAR_H

#include <string.h>
#include "sampling/grammar.h"

struct json_rules {
    uint32_t value, string, character, number;
};

static inline void json_text(struct grammar_maker *m, const char *text) { grammar_text(m, text, strlen(text)); }

/* Begins what may be there: grammar_patch(m, place, grammar_here(m)) behind it. */
static inline uint32_t json_perhaps(struct grammar_maker *m)
{
    return grammar_split(m, grammar_here(m) + 1, UINT32_MAX);
}

static inline void json_space(struct grammar_maker *m)
{
    const uint32_t p = json_perhaps(m);
    json_text(m, " ");
    grammar_patch(m, p, grammar_here(m));
}

/* One byte of a range or more. */
static inline void json_some(struct grammar_maker *m, uint8_t lo, uint8_t hi)
{
    const uint32_t here = grammar_byte(m, lo, hi);
    grammar_split(m, here, here + 2);
}

static inline uint32_t json_character_rule(struct grammar_maker *m)
{
    static const uint32_t plain[][2] = {{' ', '!'}, {'#', '['}, {']', 0x10FFFF}};
    static const char escapes[] = "\"\\/bfnrt";
    const uint32_t rule = grammar_here(m);
    for (int i = 0; i < 3; i++) {
        const uint32_t other = json_perhaps(m);
        grammar_characters(m, plain[i][0], plain[i][1]);
        grammar_return(m);
        grammar_patch(m, other, grammar_here(m));
    }
    json_text(m, "\\");
    for (const char *e = escapes; *e; e++) {
        const uint32_t other = json_perhaps(m);
        grammar_text(m, e, 1);
        grammar_return(m);
        grammar_patch(m, other, grammar_here(m));
    }
    json_text(m, "u");
    for (int i = 0; i < 4; i++) {
        grammar_split(m, grammar_here(m) + 1, grammar_here(m) + 3);
        grammar_byte(m, '0', '9');
        grammar_jump(m, grammar_here(m) + 2);
        grammar_byte(m, 'a', 'f');
    }
    grammar_return(m);
    return rule;
}

static inline uint32_t json_string_rule(struct grammar_maker *m, const struct json_rules *r)
{
    const uint32_t rule = grammar_here(m);
    json_text(m, "\"");
    const uint32_t more = json_perhaps(m);
    grammar_call(m, r->character);
    grammar_jump(m, more);
    grammar_patch(m, more, grammar_here(m));
    json_text(m, "\"");
    grammar_return(m);
    return rule;
}

static inline uint32_t json_number_rule(struct grammar_maker *m)
{
    const uint32_t rule = grammar_here(m), minus = json_perhaps(m);
    json_text(m, "-");
    grammar_patch(m, minus, grammar_here(m));
    const uint32_t zero = json_perhaps(m);
    json_text(m, "0");
    const uint32_t whole = grammar_jump(m, UINT32_MAX);
    grammar_patch(m, zero, grammar_here(m));
    grammar_byte(m, '1', '9');
    const uint32_t digits = json_perhaps(m);
    json_some(m, '0', '9');
    grammar_patch(m, digits, grammar_here(m));
    grammar_patch(m, whole, grammar_here(m));
    const uint32_t fraction = json_perhaps(m);
    json_text(m, ".");
    json_some(m, '0', '9');
    grammar_patch(m, fraction, grammar_here(m));
    const uint32_t exponent = json_perhaps(m);
    json_text(m, "e");
    json_some(m, '0', '9');
    grammar_patch(m, exponent, grammar_here(m));
    grammar_return(m);
    return rule;
}

/* "[]" or "{}", where `key` is a rule for what is before a value, or 0. */
static inline void json_list(struct grammar_maker *m, const struct json_rules *r, const char *around, uint32_t key)
{
    grammar_text(m, around, 1);
    const uint32_t any = json_perhaps(m), item = grammar_here(m);
    if (key) {
        grammar_call(m, key);
        json_text(m, ":");
        json_space(m);
    }
    grammar_call(m, r->value);
    const uint32_t more = json_perhaps(m);
    json_text(m, ",");
    json_space(m);
    grammar_jump(m, item);
    grammar_patch(m, more, grammar_here(m));
    grammar_patch(m, any, grammar_here(m));
    grammar_text(m, around + 1, 1);
    grammar_return(m);
}

/* Rules into a maker; r->value is any value. */
static inline void json_rules(struct grammar_maker *m, struct json_rules *r)
{
    static const char *const words[] = {"true", "false", "null"};
    r->character = json_character_rule(m);
    r->string = json_string_rule(m, r);
    r->number = json_number_rule(m);
    r->value = grammar_here(m);
    for (int i = 0; i < 3; i++) {
        const uint32_t other = json_perhaps(m);
        json_text(m, words[i]);
        grammar_return(m);
        grammar_patch(m, other, grammar_here(m));
    }
    uint32_t other = json_perhaps(m);
    grammar_call(m, r->string);
    grammar_return(m);
    grammar_patch(m, other, grammar_here(m));
    other = json_perhaps(m);
    grammar_call(m, r->number);
    grammar_return(m);
    grammar_patch(m, other, grammar_here(m));
    other = json_perhaps(m);
    json_list(m, r, "[]", 0);
    grammar_patch(m, other, grammar_here(m));
    json_list(m, r, "{}", r->string);
}

static inline struct grammar json_grammar(void)
{
    struct grammar_maker m = {0};
    struct json_rules r;
    struct grammar g = {0};
    const uint32_t begin = grammar_jump(&m, UINT32_MAX);
    json_rules(&m, &r);
    grammar_patch(&m, begin, r.value);
    grammar_made(&m, &g);
    return g;
}

#endif
