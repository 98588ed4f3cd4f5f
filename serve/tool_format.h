/* How a family writes calls of tools, as data: serve/tools.c has the table, serve/tool_reader.c reads by it,
 * serve/tool_grammar.c writes grammars by it. */
#ifndef HEARTH_SERVE_TOOL_FORMAT_H
#define HEARTH_SERVE_TOOL_FORMAT_H

#include <stdbool.h>
#include "serve/tool_tags.h"

/* In words of grammars. A mark may be a control token or letters. */
#define TOOL_NAME "\001"
#define TOOL_ARGUMENTS "\002"  /* a JSON object */
#define TOOL_GAP "\003"        /* a space, a line's end, or nothing */
#define TOOL_MARK(text) "\004" text
#define TOOL_ID "\005"         /* nine letters or digits */

struct tool_format {
    const char *name;
    const char *known[2];  /* all of these in a template make it one of this format */
    /* Reading. Lists end with NULL. */
    const char *opens[4];  /* begin a call wherever they are */
    const char *inner;     /* the one of them that stands before each call, behind another; NULL: none */
    const char *first;     /* begins one where the answer begins; "{": and is `begin` itself */
    bool named;            /* calls may be a name, and then arguments; else an object with both */
    const struct tool_tags *tags; /* of arguments behind a name, which are then no JSON; NULL: they are */
    const char *skipped;   /* before such a name, perhaps; NULL: nothing */
    const char *closes[4]; /* stand behind calls and mean nothing more */
    /* Writing, behind one of `opens` that begins calls, or `first`. */
    const char *begin, *calls[4], *between, *end; /* words; a call is one of calls, `between` stands between two */
    bool single;           /* there is only one call in an answer */
    bool short_ids;        /* the template wants ids of nine letters */
};

#endif
