/* Arguments between tags, of which a JSON object is made: <parameter=NAME>VALUE</parameter>, or a name and a value in
 * tags of their own. Values of strings are the strings themselves. */
#ifndef HEARTH_SERVE_TOOL_TAGS_H
#define HEARTH_SERVE_TOOL_TAGS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include "base/text.h"
#include "sampling/grammar.h"

/* An argument is key NAME key_end value VALUE value_end; what follows is another, or `end`. */
struct tool_tags {
    const char *behind_name;      /* one of these letters is behind the tool's */
    const char *key, *key_end, *value, *value_end, *end;
    bool lines;                   /* a value stands on lines of its own */
};

enum tags_found { TAGS_MORE, /* wait for more */ TAGS_MEMBER, TAGS_END, TAGS_BROKEN };

/* Looks at the beginning of n bytes, white space apart, and drops what it has understood. Of an argument a member is
 * appended to `json`, "," or "{" before it; the end is "}", or "{}". parameters: the tool's schema, or NULL; n_members:
 * those so far. *st: ST_NOMEM. */
enum tags_found tags_take(const struct tool_tags *t, const json_t *parameters, size_t *n_members, struct text *held,
                          struct text *json, status *st);

/* The "parameters" of the tool of a name, of OpenAI's array of tools, or NULL. */
const json_t *tools_parameters(const json_t *tools, const char *name, size_t n);
/* Whether the value of an argument is a string: its schema says so. *known: there is one. */
bool tags_is_string(const json_t *parameters, const char *key, bool *known);

#endif
