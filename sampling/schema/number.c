/* Numbers between bounds, digit by digit. Those with a fraction are held to 15 digits, which doubles tell apart: so a
 * text that is below a bound is below it for whoever reads it. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sampling/schema/making.h"

enum { DIGITS_APART = 15 };
#define INTEGERS INT64_C(1000000000000000000)  /* ends before: MOST_DIGITS digits */
#define WHOLES UINT64_C(1000000000000000)      /* ends before: DIGITS_APART digits */

/* --- whole numbers --- */

/* Digits from those of lo to those of hi, as many. */
static void make_digits(struct making *k, const char *lo, const char *hi)
{
    static const char nines[] = "999999999999999999", zeros[] = "000000000000000000";
    struct grammar_maker *m = k->m;
    const int rest = (int)strlen(lo) - 1;
    struct ways w;
    if (rest < 0)
        return;
    if (*lo == *hi) {
        grammar_byte(m, (uint8_t)*lo, (uint8_t)*lo);
        make_digits(k, lo + 1, hi + 1);
        return;
    }
    const bool all_lo = strncmp(lo + 1, zeros, (size_t)rest) == 0, all_hi = strncmp(hi + 1, nines, (size_t)rest) == 0;
    const char from = (char)(*lo + !all_lo), to = (char)(*hi - !all_hi);
    ways_begin(m, &w);
    if (!all_lo) {
        ways_next(m, &w);
        grammar_byte(m, (uint8_t)*lo, (uint8_t)*lo);
        make_digits(k, lo + 1, nines + MOST_DIGITS - rest);
    }
    if (from <= to) {
        ways_next(m, &w);
        grammar_byte(m, (uint8_t)from, (uint8_t)to);
        call_exactly_digits(k, rest);
    }
    if (!all_hi) {
        ways_next(m, &w);
        grammar_byte(m, (uint8_t)*hi, (uint8_t)*hi);
        make_digits(k, zeros + MOST_DIGITS - rest, hi + 1);
    }
    ways_end(m, &w);
}

static int digits_of(uint64_t n, char out[24]) { return snprintf(out, 24, "%llu", (unsigned long long)n); }

/* From lo to hi, at most MOST_DIGITS digits: for each number of digits, those that are whole decades together. */
static void make_wholes(struct making *k, uint64_t lo, uint64_t hi)
{
    struct grammar_maker *m = k->m;
    char low[24], high[24];
    struct ways w;
    ways_begin(m, &w);
    while (lo <= hi) {
        const int n = digits_of(lo, low);
        uint64_t end = 10, decade;
        for (int i = 1; i < n; i++)
            end *= 10;
        decade = end / 10;
        ways_next(m, &w);
        if (lo == decade && lo > 0 && hi >= end - 1) {
            int more = 0;
            for (; n + more < MOST_DIGITS && hi >= 10 * end - 1; more++)
                end *= 10;
            grammar_byte(m, '1', '9');
            call_exactly_digits(k, n - 1);
            call_digits(k, more);
        } else {
            digits_of(hi < end ? hi : end - 1, high);
            make_digits(k, low, high);
        }
        lo = end;
    }
    ways_end(m, &w);
}

/* The first integer from v on (up), or the last one up to it; or the next one to that. */
static int64_t integer_at(const json_t *v, bool up, bool open)
{
    const double real = json_number_value(v);
    if (real >= (double)INTEGERS || real <= -(double)INTEGERS)
        return real > 0 ? INTEGERS : -INTEGERS;
    const double whole = up ? ceil(real) : floor(real);
    const int64_t n = json_is_integer(v) ? json_integer_value(v) : (int64_t)whole;
    return open && (json_is_integer(v) || whole == real) ? n + (up ? 1 : -1) : n;
}

static void make_integers(struct making *k, const json_t *flat)
{
    static const struct {
        const char *name;
        bool up, open;
    } bounds[] = {{"minimum", true, false}, {"exclusiveMinimum", true, true},
                  {"maximum", false, false}, {"exclusiveMaximum", false, true}};
    int64_t lo = 1 - INTEGERS, hi = INTEGERS - 1;
    struct ways w;
    for (int i = 0; i < 4; i++) {
        const json_t *v = json_object_get(flat, bounds[i].name);
        const int64_t n = v ? integer_at(v, bounds[i].up, bounds[i].open) : bounds[i].up ? lo : hi;
        if (bounds[i].up && n > lo)
            lo = n;
        if (!bounds[i].up && n < hi)
            hi = n;
    }
    ways_begin(k->m, &w);
    if (hi >= 0 && lo <= hi) {
        ways_next(k->m, &w);
        make_wholes(k, lo > 0 ? (uint64_t)lo : 0, (uint64_t)hi);
    }
    if (lo < 0 && lo <= hi) {
        ways_next(k->m, &w);
        grammar_byte(k->m, '-', '-');
        make_wholes(k, hi < 0 ? (uint64_t)-hi : 1, (uint64_t)-lo);
    }
    ways_end(k->m, &w);
}

/* --- fractions --- */

/* A bound's size. */
struct bound {
    bool there, open, negative;
    uint64_t whole;
    char fraction[DIGITS_APART + 1]; /* no zeros at its end */
};

static const struct bound zero = {.there = true};

static status read_bound(const json_t *v, bool open, const struct where *at, struct bound *b)
{
    const double size = fabs(json_number_value(v));
    char text[40];
    int digits = 0;
    *b = (struct bound){.there = true, .open = open, .negative = json_number_value(v) < 0};
    if (size >= (double)WHOLES) { /* none, where all that is written is on its right side */
        b->whole = WHOLES;
        return ST_OK;
    }
    do {
        snprintf(text, sizeof text, "%.*f", digits, size);
    } while (strtod(text, NULL) != size && ++digits <= DIGITS_APART);
    if (digits > DIGITS_APART)
        return schema_refuse(at, ST_USAGE, "a bound with more than %d digits is not supported", DIGITS_APART);
    b->whole = strtoull(text, NULL, 10);
    if (digits > 0)
        strcpy(b->fraction, strchr(text, '.') + 1);
    return ST_OK;
}

/* -1, 0, 1; by size alone. */
static int compare_sizes(const struct bound *a, const struct bound *b)
{
    if (a->whole != b->whole)
        return a->whole < b->whole ? -1 : 1;
    const int c = strcmp(a->fraction, b->fraction);
    return c < 0 ? -1 : c > 0;
}

/* Digits behind a point, n of them written and `left` that may follow: from lo to hi, of which the rest is given (NULL:
 * what is written decides already). */
static void make_fraction(struct making *k, const char *lo, const char *hi, const struct bound *low,
                          const struct bound *high, int n, int left)
{
    struct grammar_maker *m = k->m;
    struct ways w;
    const char zeros[] = "0", *rest_lo = lo && *lo ? lo : zeros, *rest_hi = hi && *hi ? hi : zeros;
    const char from = lo ? *rest_lo : '0', to = hi ? *rest_hi : '9';
    ways_begin(m, &w);
    if (n > 0 && (!lo || (!*lo && !low->open)) && (!hi || *hi || !high->open))
        ways_next(m, &w);
    if (left > 0 && lo && hi && from == to) {
        ways_next(m, &w);
        grammar_byte(m, (uint8_t)from, (uint8_t)from);
        make_fraction(k, lo + !!*lo, hi + !!*hi, low, high, n + 1, left - 1);
    } else if (left > 0) {
        if (lo) {
            ways_next(m, &w);
            grammar_byte(m, (uint8_t)from, (uint8_t)from);
            make_fraction(k, lo + !!*lo, NULL, low, high, n + 1, left - 1);
        }
        if (hi) {
            ways_next(m, &w);
            grammar_byte(m, (uint8_t)to, (uint8_t)to);
            make_fraction(k, NULL, hi + !!*hi, low, high, n + 1, left - 1);
        }
        if (from + !!lo <= to - !!hi) {
            ways_next(m, &w);
            grammar_byte(m, (uint8_t)(from + !!lo), (uint8_t)(to - !!hi));
            call_digits(k, left - 1);
        }
    }
    ways_end(m, &w);
}

static void make_any_fraction(struct making *k, int most)
{
    const uint32_t skip = maybe(k->m);
    grammar_byte(k->m, '.', '.');
    grammar_byte(k->m, '0', '9');
    call_digits(k, most - 1);
    grammar_patch(k->m, skip, grammar_here(k->m));
}

/* The whole number of an edge, and what of a fraction is within. */
static void make_edge(struct making *k, const struct bound *lo, const struct bound *hi, int most)
{
    const struct bound *edge = lo ? lo : hi;
    const bool bare = (!lo || (!lo->fraction[0] && !lo->open)) && (!hi || hi->fraction[0] || !hi->open);
    const bool more = !hi || hi->fraction[0] || !hi->open;
    char digits[24];
    grammar_text(k->m, digits, (size_t)digits_of(edge->whole, digits));
    if (!more) {
        if (!bare)
            dead_end(k->m);
        return;
    }
    const uint32_t skip = bare ? maybe(k->m) : NOWHERE;
    grammar_byte(k->m, '.', '.');
    make_fraction(k, lo ? lo->fraction : NULL, hi ? hi->fraction : NULL, lo, hi, 0, most);
    grammar_patch(k->m, skip, grammar_here(k->m));
}

/* Numbers without a sign from lo to hi (not there: no bound). */
static status make_sizes(struct making *k, const struct bound *lo, const struct bound *hi, const struct where *at)
{
    const bool bounded = hi->there && hi->whole < WHOLES;
    const bool whole_lo = !lo->fraction[0] && !lo->open;
    char digits[24];
    struct ways w;
    int longest = digits_of(lo->whole, digits);
    if (bounded && digits_of(hi->whole, digits) > longest)
        longest = digits_of(hi->whole, digits);
    const int most = DIGITS_APART - longest;
    if (most < 1 || strlen(lo->fraction) > (size_t)most || (bounded && strlen(hi->fraction) > (size_t)most))
        return schema_refuse(at, ST_USAGE, "bounds with more than %d digits are not supported", DIGITS_APART);
    const int order = bounded ? compare_sizes(lo, hi) : -1;
    ways_begin(k->m, &w);
    const uint64_t from = lo->whole + !whole_lo, end = bounded ? hi->whole : WHOLES; /* all between */
    if (from < end) {
        ways_next(k->m, &w);
        make_wholes(k, from, end - 1);
        make_any_fraction(k, most);
    }
    if (!whole_lo && lo->whole < end) {
        ways_next(k->m, &w);
        make_edge(k, lo, NULL, most);
    }
    if (bounded && (order < 0 || (order == 0 && !lo->open && !hi->open))) {
        ways_next(k->m, &w);
        make_edge(k, lo->whole == hi->whole ? lo : NULL, hi, most);
    }
    ways_end(k->m, &w);
    return ST_OK;
}

/* The tighter one of two bounds, either of which may be missing. */
static status read_bounds(const json_t *closed, const json_t *open, bool up, const struct where *at, struct bound *b)
{
    *b = (struct bound){0};
    if (!closed && !open)
        return ST_OK;
    const double difference = closed && open ? json_number_value(open) - json_number_value(closed) : 0;
    const bool take_open = open && (!closed || (up ? difference >= 0 : difference <= 0));
    return read_bound(take_open ? open : closed, take_open, at, b);
}

static status make_fractions(struct making *k, const json_t *flat, const struct where *at)
{
    struct bound lo, hi;
    struct ways w;
    status st = read_bounds(json_object_get(flat, "minimum"), json_object_get(flat, "exclusiveMinimum"), true, at, &lo);
    if (st == ST_OK)
        st = read_bounds(json_object_get(flat, "maximum"), json_object_get(flat, "exclusiveMaximum"), false, at, &hi);
    if (st != ST_OK)
        return st;
    const bool hi_is_zero = hi.there && compare_sizes(&hi, &zero) == 0;
    ways_begin(k->m, &w);
    if (!(hi.there && hi.negative) && !(lo.there && !lo.negative && lo.whole == WHOLES)) {
        ways_next(k->m, &w);
        st = make_sizes(k, lo.there && !lo.negative ? &lo : &zero, &hi, at);
    }
    if (st == ST_OK && (!lo.there || lo.negative) && !(hi.there && hi.negative && hi.whole == WHOLES)) {
        ways_next(k->m, &w);
        grammar_byte(k->m, '-', '-');
        st = make_sizes(k, hi.there && (hi.negative || hi_is_zero) ? &hi : &zero, &lo, at);
    }
    ways_end(k->m, &w);
    return st;
}

status make_number(struct making *k, const json_t *flat, bool integer, const struct where *at)
{
    const bool bounded = json_object_get(flat, "minimum") || json_object_get(flat, "maximum") ||
                         json_object_get(flat, "exclusiveMinimum") || json_object_get(flat, "exclusiveMaximum");
    if (!bounded)
        call_part(k, integer ? PART_INTEGER : PART_NUMBER);
    else if (integer)
        make_integers(k, flat);
    else
        return make_fractions(k, flat, at);
    return ST_OK;
}
