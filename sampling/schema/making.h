/* What the files of this room share: a grammar in the making, of one schema. In the order of who uses whom:
 *   refuse.c                      what is wrong, and where
 *   flow.c                        alternatives, counts
 *   json.c, spell.c               what any JSON is, and how one value is written
 *   keywords.c, merge.c, apart.c  what a schema says: its keywords, all that hold at once, two that cannot
 *   expression.c, window.c, pattern.c  regular expressions
 *   string.c, number.c, object.c, array.c, schema.c
 * Functions that return no status leave it in the grammar's maker; those that do return that one too. Ops that are
 * appended are inline, one behind the other, unless they are said to be a rule. */
#ifndef HEARTH_SAMPLING_SCHEMA_MAKING_H
#define HEARTH_SAMPLING_SCHEMA_MAKING_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include "base/status.h"
#include "sampling/grammar.h"

#define NOWHERE UINT32_MAX /* a place to be patched */
#define ANY_COUNT UINT64_MAX

enum {
    MOST_NESTED = 100,    /* schemas within schemas */
    MOST_WORK = 1 << 18,  /* keywords read, copied and compared */
    MOST_COUNT = 1 << 20, /* minLength and minItems; a larger maximum is none: no text is as long */
    COUNT_LEVELS = 5,     /* powers of 16 up to that */
    MOST_DIGITS = 18      /* of a number before its point: what all readers have room for */
};

/* A place in the schema: "#/properties/a". On the stack of who goes down. */
struct where {
    const struct where *up;
    const char *key; /* NULL: index */
    size_t index;
};

/* Rules that all schemas share, each made when it is first needed. */
enum part {
    PART_HEX,       /* a hexadecimal digit */
    PART_PLAIN,     /* a character that a string holds as it is */
    PART_CHARACTER, /* any, as it is or by an escape */
    PART_STRING,
    PART_DIGITS,   /* up to MOST_DIGITS digits, and at places further on fewer: call_digits */
    PART_EXACTLY,  /* MOST_DIGITS digits, and so on */
    PART_INTEGER,
    PART_NUMBER,
    PART_ANY,
    PART_OBJECT,
    PART_FORMAT, /* and more of them: string.c */
    PARTS = PART_FORMAT + 10
};

struct rule {
    const json_t *schema; /* borrowed: of the root */
    char *path;           /* as in $ref, malloc'ed */
    uint32_t place;       /* a JUMP to it */
};

/* Rules that repeat another one 16^i times, and fewer times than that. */
struct powers {
    uint32_t exactly[COUNT_LEVELS + 1], below[COUNT_LEVELS + 1];
    bool made;
};

struct making {
    struct grammar_maker *m;
    const json_t *root;
    uint32_t parts[PARTS]; /* NOWHERE: not made */
    struct powers characters; /* of PART_CHARACTER */
    struct rule *rules;    /* [n_rules] what $ref names, in the order it came up */
    size_t n_rules, cap_rules;
    size_t work;
    int nested;
    /* Appends what a schema allows (schema.c; who lies below it comes here). */
    status (*value)(struct making *k, const json_t *schema, const struct where *at);
};

/* refuse.c. Logs "schema: #/properties/a: ..." and returns st. */
status schema_refuse(const struct where *at, status st, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* Counts work and depth: ST_FULL (logged) when there is too much of either. */
status spend(struct making *k, size_t work, const struct where *at);
/* What it takes to compare each value of an array with each of another one, either of which may be NULL. */
size_t work_to_compare(const json_t *a, const json_t *b);

/* flow.c. Alternatives: ways_next before each, ways_end behind the last; none at all is a dead end, and a way that
 * leads to one is taken out when the grammar is done. */
struct ways {
    uint32_t end, split;
};
void ways_begin(struct grammar_maker *m, struct ways *w);
void ways_next(struct grammar_maker *m, struct ways *w);
void ways_end(struct grammar_maker *m, struct ways *w);
void dead_end(struct grammar_maker *m);
/* What comes between them is a rule, aside of the way. */
struct aside {
    uint32_t over, place;
};
struct aside aside_begin(struct grammar_maker *m);
uint32_t aside_end(struct grammar_maker *m, const struct aside *a); /* the rule's place */
/* Takes up what follows, or goes on where grammar_patch says. */
uint32_t maybe(struct grammar_maker *m);
/* A rule from `least` to `most` times (ANY_COUNT: any number, and it is not empty). Large counts need powers of the
 * rule: `kept` ones, made if they are not yet, or with NULL its own. */
void repeat(struct grammar_maker *m, uint32_t rule, uint64_t least, uint64_t most, struct powers *kept);
/* Takes out what leads nowhere from `start` on. ST_USAGE (logged): a rule begins with itself, or `root` allows
 * nothing. */
status finish(struct making *k, uint32_t start, uint32_t root);

/* json.c */
uint32_t json_part(struct making *k, enum part part); /* the rule's place; but PART_FORMAT */
void call_part(struct making *k, enum part part);
void call_digits(struct making *k, int n);        /* up to n digits, at most MOST_DIGITS */
void call_exactly_digits(struct making *k, int n);
void maybe_space(struct grammar_maker *m);
void comma(struct grammar_maker *m);

/* spell.c. How one value is written: strings as they are, with \" \\ and what is below a space escaped. */
void spell_string(struct grammar_maker *m, const char *text, size_t n);
status spell_values(struct making *k, const json_t *values); /* one of an array */
/* Whether any character is written as it is within a string. */
bool is_plain(uint32_t c);
/* The escape of one that is not, into out, NUL behind; "" if it has no short one. */
const char *escape_of(uint32_t c);

/* keywords.c */
enum type {
    TYPE_NULL = 1, TYPE_BOOLEAN = 2, TYPE_INTEGER = 4, TYPE_FRACTION = 8, TYPE_STRING = 16, TYPE_ARRAY = 32,
    TYPE_OBJECT = 64, TYPE_NUMBER = TYPE_INTEGER | TYPE_FRACTION, TYPE_ALL = 127
};
status check_keywords(const json_t *schema, const struct where *at);
bool is_assertion(const char *keyword);
bool is_required(const json_t *flat, const char *name); /* flat: its "required" is an array of strings */
unsigned speaks_of(const char *keyword);     /* types that a keyword says something about; 0: all */
unsigned types_in(const json_t *type);       /* of a value of "type"; NULL: TYPE_ALL */
unsigned type_of(const json_t *value);
json_t *names_of_types(unsigned types);      /* a value of "type"; NULL: no memory */
uint64_t count_of(const json_t *flat, const char *keyword, uint64_t otherwise);

/* merge.c. A flat schema: an object without $ref, allOf and const. It is the caller's. */
status flatten(struct making *k, const json_t *schema, const struct where *at, json_t **flat);
/* into: what both say. */
status merge(struct making *k, json_t *into, const json_t *flat, const struct where *at);
status resolve(struct making *k, const char *ref, const struct where *at, const json_t **schema);
json_t *copy_without(const json_t *flat, const char *keyword); /* NULL: no memory */

/* apart.c. ST_USAGE (logged) unless no value is of two of the flat schemas, some of which then require what tells them
 * apart. */
status keep_apart(struct making *k, json_t *flats, const struct where *at);

/* pattern.c. A string of least to most characters that an expression finds, with its quotes. */
status make_pattern(struct making *k, const char *pattern, bool known, uint64_t least, uint64_t most,
                    const struct where *at);

/* What a flat schema says of one type. */
status make_string(struct making *k, const json_t *flat, const struct where *at);
status make_number(struct making *k, const json_t *flat, bool integer, const struct where *at);
status make_object(struct making *k, const json_t *flat, const struct where *at);
status make_array(struct making *k, const json_t *flat, const struct where *at);

#endif
