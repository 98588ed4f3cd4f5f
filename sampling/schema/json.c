/* What JSON is, whatever a schema says. Escapes make no lone surrogates, and none makes a NUL: many readers cannot hold
 * it. Numbers are no longer than doubles and 64-bit integers have room for. */
#include <string.h>

#include "sampling/schema/making.h"

void maybe_space(struct grammar_maker *m)
{
    const uint32_t skip = maybe(m);
    grammar_byte(m, ' ', ' ');
    grammar_patch(m, skip, grammar_here(m));
}

void comma(struct grammar_maker *m)
{
    grammar_byte(m, ',', ',');
    maybe_space(m);
}

/* A byte of pairs "az09": from a to z or from 0 to 9. */
static void byte_of(struct grammar_maker *m, const char *pairs)
{
    struct ways w;
    if (!pairs[2]) {
        grammar_byte(m, (uint8_t)pairs[0], (uint8_t)pairs[1]);
        return;
    }
    ways_begin(m, &w);
    for (; *pairs; pairs += 2) {
        ways_next(m, &w);
        grammar_byte(m, (uint8_t)pairs[0], (uint8_t)pairs[1]);
    }
    ways_end(m, &w);
}

static void hex(struct making *k, int n)
{
    while (n-- > 0)
        call_part(k, PART_HEX);
}

/* Behind "\u": a character but NUL and surrogates, or a pair of those. */
static void make_unit(struct making *k)
{
    static const char zeros[] = "000", not_zero[] = "19afAF";
    struct grammar_maker *m = k->m;
    struct ways w;
    ways_begin(m, &w);
    for (size_t n = 1; n <= 3; n++) {
        ways_next(m, &w);
        grammar_text(m, zeros, n);
        byte_of(m, not_zero);
        hex(k, 3 - (int)n);
    }
    ways_next(m, &w);
    byte_of(m, "19acACefEF");
    hex(k, 3);
    ways_next(m, &w);
    byte_of(m, "ddDD");
    byte_of(m, "07");
    hex(k, 2);
    ways_next(m, &w);
    byte_of(m, "ddDD");
    byte_of(m, "89abAB");
    hex(k, 2);
    grammar_text(m, "\\u", 2);
    byte_of(m, "ddDD");
    byte_of(m, "cfCF");
    hex(k, 2);
    ways_end(m, &w);
}

static void make_escape(struct making *k)
{
    struct ways w;
    grammar_byte(k->m, '\\', '\\');
    ways_begin(k->m, &w);
    ways_next(k->m, &w);
    byte_of(k->m, "\"\"\\\\//bbffnnrrtt");
    ways_next(k->m, &w);
    grammar_byte(k->m, 'u', 'u');
    make_unit(k);
    ways_end(k->m, &w);
}

static void make_plain(struct grammar_maker *m)
{
    struct ways w;
    ways_begin(m, &w);
    ways_next(m, &w);
    byte_of(m, " !#[]\x7f");
    ways_next(m, &w);
    grammar_characters(m, 0x80, 0x10FFFF);
    ways_end(m, &w);
}

static void make_character(struct making *k)
{
    struct ways w;
    ways_begin(k->m, &w);
    ways_next(k->m, &w);
    make_plain(k->m);
    ways_next(k->m, &w);
    make_escape(k);
    ways_end(k->m, &w);
}

static void make_digits(struct grammar_maker *m)
{
    const uint32_t first = grammar_here(m);
    for (uint32_t i = 0; i < MOST_DIGITS; i++) {
        maybe(m);
        byte_of(m, "09");
    }
    for (uint32_t i = 0; i < MOST_DIGITS; i++)
        grammar_patch(m, first + 2 * i, grammar_here(m));
}

static void make_whole(struct making *k)
{
    struct ways w;
    ways_begin(k->m, &w);
    ways_next(k->m, &w);
    byte_of(k->m, "00");
    ways_next(k->m, &w);
    byte_of(k->m, "19");
    call_digits(k, MOST_DIGITS - 1);
    ways_end(k->m, &w);
}

static void make_integer(struct making *k)
{
    struct ways w;
    ways_begin(k->m, &w);
    ways_next(k->m, &w);
    make_whole(k);
    ways_next(k->m, &w);
    byte_of(k->m, "--");
    byte_of(k->m, "19");
    call_digits(k, MOST_DIGITS - 1);
    ways_end(k->m, &w);
}

/* With a hundred and some zeros: far from what overflows. */
static void make_exponent(struct making *k)
{
    uint32_t skip;
    struct ways w;
    byte_of(k->m, "eeEE");
    skip = maybe(k->m);
    byte_of(k->m, "++--");
    grammar_patch(k->m, skip, grammar_here(k->m));
    ways_begin(k->m, &w);
    ways_next(k->m, &w);
    byte_of(k->m, "09");
    call_digits(k, 1);
    ways_next(k->m, &w);
    byte_of(k->m, "11");
    call_exactly_digits(k, 2);
    ways_end(k->m, &w);
}

static void make_any_number(struct making *k)
{
    struct grammar_maker *m = k->m;
    uint32_t skip = maybe(m);
    byte_of(m, "--");
    grammar_patch(m, skip, grammar_here(m));
    make_whole(k);
    skip = maybe(m);
    byte_of(m, "..");
    byte_of(m, "09");
    call_digits(k, MOST_DIGITS - 1);
    grammar_patch(m, skip, grammar_here(m));
    skip = maybe(m);
    make_exponent(k);
    grammar_patch(m, skip, grammar_here(m));
}

static void make_any_string(struct making *k)
{
    const uint32_t character = json_part(k, PART_CHARACTER);
    byte_of(k->m, "\"\"");
    repeat(k->m, character, 0, ANY_COUNT, NULL);
    byte_of(k->m, "\"\"");
}

/* Any values with commas, each with a name in an object. */
static void make_members(struct making *k, char open, char close, bool named)
{
    struct grammar_maker *m = k->m;
    grammar_byte(m, (uint8_t)open, (uint8_t)open);
    const uint32_t none = maybe(m), again = grammar_here(m);
    if (named) {
        call_part(k, PART_STRING);
        grammar_byte(m, ':', ':');
        maybe_space(m);
    }
    call_part(k, PART_ANY);
    const uint32_t last = maybe(m);
    comma(m);
    grammar_jump(m, again);
    grammar_patch(m, none, grammar_here(m));
    grammar_patch(m, last, grammar_here(m));
    grammar_byte(m, (uint8_t)close, (uint8_t)close);
}

static void make_any(struct making *k)
{
    static const char *const words[] = {"true", "false", "null"};
    struct grammar_maker *m = k->m;
    struct ways w;
    ways_begin(m, &w);
    ways_next(m, &w);
    call_part(k, PART_STRING);
    ways_next(m, &w);
    call_part(k, PART_NUMBER);
    for (int i = 0; i < 3; i++) {
        ways_next(m, &w);
        grammar_text(m, words[i], strlen(words[i]));
    }
    ways_next(m, &w);
    make_members(k, '[', ']', false);
    ways_next(m, &w);
    make_members(k, '{', '}', true);
    ways_end(m, &w);
}

uint32_t json_part(struct making *k, enum part part)
{
    if (k->parts[part] != NOWHERE)
        return k->parts[part];
    const struct aside a = aside_begin(k->m);
    k->parts[part] = a.place; /* it may use itself */
    switch (part) {
    case PART_HEX: byte_of(k->m, "09afAF"); break;
    case PART_PLAIN: make_plain(k->m); break;
    case PART_CHARACTER: make_character(k); break;
    case PART_STRING: make_any_string(k); break;
    case PART_DIGITS: make_digits(k->m); break;
    case PART_EXACTLY:
        for (int i = 0; i < MOST_DIGITS; i++)
            byte_of(k->m, "09");
        break;
    case PART_INTEGER: make_integer(k); break;
    case PART_NUMBER: make_any_number(k); break;
    case PART_ANY: make_any(k); break;
    default: make_members(k, '{', '}', true); break;
    }
    return aside_end(k->m, &a);
}

void call_part(struct making *k, enum part part)
{
    const uint32_t place = json_part(k, part);
    grammar_call(k->m, place);
}

void call_digits(struct making *k, int n)
{
    const uint32_t all = json_part(k, PART_DIGITS);
    grammar_call(k->m, all + 2 * (uint32_t)(MOST_DIGITS - n));
}

void call_exactly_digits(struct making *k, int n)
{
    const uint32_t all = json_part(k, PART_EXACTLY);
    grammar_call(k->m, all + (uint32_t)(MOST_DIGITS - n));
}
