/* Grammars of answers that may, or must, call tools. */
#include <stdlib.h>
#include <string.h>
#include "base/log.h"
#include "sampling/schema/schema.h"
#include "serve/text_rule.h"
#include "serve/tool_format.h"
#include "serve/tools.h"

enum { MOST_CALLED = 256, MOST_ARGUMENTS = 128 };

/* The tools that may be called. */
struct called {
    const char *name[MOST_CALLED];
    uint32_t rule[MOST_CALLED]; /* of the arguments */
    size_t n;
    uint32_t any;               /* the rule of any object, which tools share; 0: there is none yet */
};

static void put_space(struct grammar_maker *m)
{
    const uint32_t here = grammar_here(m);
    grammar_split(m, here + 1, here + 5);
    grammar_split(m, here + 2, here + 4);
    grammar_byte(m, ' ', ' ');
    grammar_jump(m, here + 5);
    grammar_byte(m, '\n', '\n');
}

static void put_id(struct grammar_maker *m)
{
    for (int i = 0; i < 9; i++) {
        const uint32_t here = grammar_here(m);
        grammar_split(m, here + 1, here + 3);
        grammar_byte(m, 'a', 'z');
        grammar_jump(m, here + 8);
        grammar_split(m, here + 4, here + 6);
        grammar_byte(m, 'A', 'Z');
        grammar_jump(m, here + 8);
        grammar_byte(m, '0', '9');
        grammar_jump(m, here + 8);
    }
}

/* n bytes of words without a name and arguments. */
static void put_words(struct grammar_maker *m, const char *words, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const uint32_t here = grammar_here(m);
        if (words[i] == *TOOL_GAP) {
            put_space(m);
        } else if (words[i] == *TOOL_ID) {
            put_id(m);
        } else if (words[i] == *TOOL_MARK("")) {
            grammar_split(m, here + 1, here + 2);
            grammar_byte(m, GRAMMAR_CONTROL, GRAMMAR_CONTROL);
        } else {
            grammar_text(m, words + i, 1);
        }
    }
}

static void put(struct grammar_maker *m, const char *words)
{
    put_words(m, words, strlen(words));
}

/* A call in one of a format's ways. */
static void put_call(struct grammar_maker *m, const struct called *c, const char *words)
{
    const char *name = strchr(words, *TOOL_NAME), *arguments = strchr(words, *TOOL_ARGUMENTS);
    const uint32_t end = text_label(m);
    put_words(m, words, (size_t)(name - words));
    for (size_t i = 0; i < c->n; i++) {
        const uint32_t split = i + 1 < c->n ? grammar_split(m, grammar_here(m) + 1, UINT32_MAX) : 0;
        put(m, c->name[i]);
        put_words(m, name + 1, (size_t)(arguments - name) - 1);
        grammar_call(m, c->rule[i]);
        grammar_jump(m, end);
        if (i + 1 < c->n)
            grammar_patch(m, split, grammar_here(m));
    }
    grammar_patch(m, end, grammar_here(m));
    put(m, arguments + 1);
}

/* A call in any of them. */
static void put_some_call(struct grammar_maker *m, const struct tool_format *f, const struct called *c)
{
    const uint32_t end = text_label(m);
    for (int i = 0; f->calls[i]; i++) {
        const uint32_t split = f->calls[i + 1] ? grammar_split(m, grammar_here(m) + 1, UINT32_MAX) : 0;
        put_call(m, c, f->calls[i]);
        grammar_jump(m, end);
        if (f->calls[i + 1])
            grammar_patch(m, split, grammar_here(m));
    }
    grammar_patch(m, end, grammar_here(m));
}

/* All calls of an answer, behind the mark that opens them, and its end. Returns the place behind `begin`. */
static uint32_t put_calls(struct grammar_maker *m, const struct tool_format *f, const struct called *c, bool parallel)
{
    put(m, f->begin);
    const uint32_t again = grammar_here(m);
    put_some_call(m, f, c);
    if (parallel && !f->single) {
        const uint32_t split = grammar_split(m, grammar_here(m) + 1, UINT32_MAX);
        put(m, f->between);
        grammar_jump(m, again);
        grammar_patch(m, split, grammar_here(m));
    }
    put(m, f->end);
    grammar_return(m);
    return again;
}

/* What opens calls, as marks that lead to them; to `nowhere`, if it may not come first. Returns their number. */
static size_t openings(const struct tool_format *f, uint32_t calls, uint32_t nowhere, struct text_mark *marks)
{
    size_t n = 0;
    for (; f->opens[n]; n++)
        marks[n] = (struct text_mark){f->opens[n], f->inner && !strcmp(f->opens[n], f->inner) ? nowhere : calls};
    return n;
}

/* Only a call: by any mark, or without one. */
static void put_required(struct grammar_maker *m, const struct text_mark *marks, size_t n,
                         const struct text_mark *first)
{
    for (size_t i = 0; i < n; i++) {
        const bool more = i + 1 < n || first->text;
        const uint32_t split = more ? grammar_split(m, grammar_here(m) + 1, UINT32_MAX) : 0;
        put(m, TOOL_MARK(""));
        put(m, marks[i].text);
        grammar_jump(m, marks[i].to);
        if (more)
            grammar_patch(m, split, grammar_here(m));
    }
    if (!first->text)
        return;
    put(m, TOOL_GAP);
    put(m, first->text);
    grammar_jump(m, first->to);
}

/* The rule of a schema. What is not asked to be strict may have one of which no grammar is made: *none then, and
 * nothing was appended. */
static status put_schema(struct grammar_maker *m, const json_t *schema, bool strict, const char *whose, uint32_t *rule,
                         bool *none)
{
    const uint32_t before = grammar_here(m);
    struct log_catcher caught;
    if (strict)
        return schema_rule(schema, m, rule);
    log_catch(&caught);
    status st = schema_rule(schema, m, rule);
    log_catch(NULL);
    *none = st == ST_USAGE;
    if (!*none) {
        if (st != ST_OK && *caught.first_error)
            log_error("%s", caught.first_error);
        return st;
    }
    log_warn("tool '%s': its arguments may be any: %s", whose, caught.first_error);
    m->n = before;
    return ST_OK;
}

/* An argument between tags: a text up to the tag behind it, or JSON of a rule (0: a text). The text goes on at
 * `next`. */
static void put_argument(struct grammar_maker *m, const struct tool_tags *t, const char *key, uint32_t rule,
                         uint32_t next)
{
    const char *line = t->lines ? "\n" : "";
    put(m, t->key);
    grammar_text(m, key, strlen(key));
    put(m, t->key_end);
    put(m, *t->value ? TOOL_GAP : line);
    put(m, t->value);
    if (rule) {
        grammar_call(m, rule);
        put(m, line);
        put(m, t->value_end);
        put(m, TOOL_GAP);
        grammar_jump(m, next);
    } else {
        const uint32_t behind = text_label(m);
        text_rule(m, &(struct text_mark){t->value_end, behind}, 1, NULL, false);
        grammar_patch(m, behind, grammar_here(m));
        put(m, TOOL_GAP);
        grammar_jump(m, next);
    }
}

/* Any of the arguments that a schema has, in any order. */
static status put_tagged(struct grammar_maker *m, const struct tool_tags *t, const json_t *function, bool loose,
                         uint32_t *rule)
{
    const json_t *parameters = json_object_get(function, "parameters");
    json_t *properties = json_object_get(parameters, "properties"), *schema;
    const char *key, *name = json_string_value(json_object_get(function, "name"));
    uint32_t rules[MOST_ARGUMENTS] = {0};
    size_t n = 0;
    status st = ST_OK;
    json_object_foreach(properties, key, schema) {
        bool known, none = false;
        if (n == MOST_ARGUMENTS) {
            log_warn("tool '%s': of its arguments the first %d can be given", name, MOST_ARGUMENTS);
            break;
        }
        if (!loose && !tags_is_string(parameters, key, &known) && known)
            st = put_schema(m, schema, false, name, &rules[n], &none);
        if (st != ST_OK)
            return st;
        rules[n] = none ? 0 : rules[n];
        n++;
    }
    *rule = grammar_here(m);
    const uint32_t next = *rule;
    size_t i = 0;
    json_object_foreach(properties, key, schema) {
        if (i == n)
            break;
        if (strstr(key, t->key_end)) { /* it would be read as another */
            log_warn("tool '%s': the argument '%s' cannot be written in this model's format", name, key);
            i++;
            continue;
        }
        const uint32_t split = grammar_split(m, grammar_here(m) + 1, UINT32_MAX);
        put_argument(m, t, key, rules[i++], next);
        grammar_patch(m, split, grammar_here(m));
    }
    grammar_return(m);
    return st;
}

/* The rule of a tool's arguments. loose: what is not strict may be any object. */
static status put_arguments(struct grammar_maker *m, const struct tool_format *f, const json_t *function, bool loose,
                            struct called *c)
{
    const json_t *schema = json_object_get(function, "parameters");
    uint32_t *rule = &c->rule[c->n];
    const bool strict = json_is_true(json_object_get(function, "strict"));
    bool none = !json_object_size(schema) || (loose && !strict);
    if (f->tags)
        return put_tagged(m, f->tags, function, loose, rule);
    status st = none ? ST_OK
                     : put_schema(m, schema, strict, json_string_value(json_object_get(function, "name")), rule, &none);
    if (st == ST_OK && none && !c->any)
        st = schema_any_object(m, &c->any);
    if (none)
        *rule = c->any;
    return st;
}

/* Rules for all tools, or the one of a name. */
static status put_tools(struct grammar_maker *m, const struct tool_format *f, const json_t *tools, const char *name,
                        bool loose, struct called *c)
{
    json_t *tool;
    size_t i;
    status st = ST_OK;
    json_array_foreach(tools, i, tool) {
        const json_t *function = json_object_get(tool, "function");
        const char *own = json_string_value(json_object_get(function, "name"));
        if (name && strcmp(own, name) != 0)
            continue;
        c->name[c->n] = own;
        st = put_arguments(m, f, function, loose, c);
        if (st != ST_OK || ++c->n == MOST_CALLED)
            break;
    }
    if (st == ST_OK && c->n == 0) {
        log_error("tools: there is no tool '%.60s'", name ? name : "");
        st = ST_USAGE;
    }
    return st;
}

/* What tool_grammar is asked for. */
struct asked {
    const json_t *tools;
    enum tool_choice choice;
    const char *name;
    bool parallel;
    const struct grammar *text;
};

/* loose: arguments that are not strict may be any object. */
static status make(const struct tool_format *f, const struct asked *asked, bool loose, struct grammar *out)
{
    struct grammar_maker m = {0};
    struct called c = {.n = 0};
    struct text_mark marks[TEXT_MARKS], first;
    const uint32_t start = grammar_jump(&m, UINT32_MAX);
    status st = put_tools(&m, f, asked->tools, asked->choice == TOOLS_NAMED ? asked->name : NULL, loose, &c);
    if (st != ST_OK) {
        grammar_drop(&m);
        return st;
    }
    const uint32_t calls = grammar_here(&m), behind = put_calls(&m, f, &c, asked->parallel);
    const size_t n = openings(f, calls, grammar_byte(&m, 1, 0), marks);
    first = (struct text_mark){f->first, f->first && *f->first == '{' ? behind : calls};
    grammar_patch(&m, start, grammar_here(&m));
    if (asked->choice == TOOLS_AUTO && !asked->text) {
        text_rule(&m, marks, n, first.text ? &first : NULL, true);
        return grammar_made(&m, out);
    }
    const uint32_t or = asked->choice == TOOLS_AUTO ? grammar_split(&m, grammar_here(&m) + 1, UINT32_MAX) : 0;
    put_required(&m, marks, n, &first);
    if (asked->choice == TOOLS_AUTO) {
        grammar_patch(&m, or, grammar_here(&m));
        text_grammar(&m, asked->text);
    }
    return grammar_made(&m, out);
}

status tool_grammar(const struct tool_format *f, const json_t *tools, enum tool_choice choice, const char *name,
                    bool parallel, const struct grammar *text, struct grammar *out)
{
    const struct asked asked = {tools, choice, name, parallel, text};
    struct log_catcher caught;
    log_catch(&caught);
    status st = make(f, &asked, false, out);
    log_catch(NULL);
    if (st == ST_FULL) {
        log_warn("tools: their schemas are too much for one grammar: arguments may be any object: %s",
                 *caught.first_error ? caught.first_error : "they are too many");
        st = make(f, &asked, true, out);
    } else if (st != ST_OK) {
        log_error("%s", caught.first_error);
    }
    return st;
}
