/* Calls of tools as models write them, a format for each family: what a grammar allows of them, and reading them. */
#ifndef HEARTH_SERVE_TOOLS_H
#define HEARTH_SERVE_TOOLS_H

#include <jansson.h>
#include <stdbool.h>
#include "base/status.h"
#include "model/chat.h"
#include "sampling/grammar.h"

struct tool_format; /* a constant: "hermes" (ChatML, Qwen), "llama3", "mistral", "gpt-oss", "deepseek", ... */

/* By the marks that a file's template writes; what is none of them has calls in the way of Hermes. Never NULL. */
const struct tool_format *tool_format_of(const struct chat_template *t);
const char *tool_format_name(const struct tool_format *f);

enum tool_choice { TOOLS_AUTO, TOOLS_NONE, TOOLS_REQUIRED, TOOLS_NAMED };

/* What an answer may be: with AUTO any text, in which whatever begins like a call is one of a tool that there is, with
 * arguments of its schema; with REQUIRED, NAMED such a call (several with `parallel`). `text`: with AUTO it is a call
 * or of this grammar, nothing else; NULL: any text. `tools`: checked (tools_check). out->ops is malloc'ed. ST_USAGE
 * (logged): a schema of which no grammar is made; ST_FULL, ST_NOMEM. */
status tool_grammar(const struct tool_format *f, const json_t *tools, enum tool_choice choice, const char *name,
                    bool parallel, const struct grammar *text, struct grammar *out);
/* ST_USAGE (logged) unless it is an array of OpenAI's tools: {"type": "function", "function": {"name", "parameters",
 * ...}}. */
status tools_check(const json_t *tools);

#endif
