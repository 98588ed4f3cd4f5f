/* Calls of tools out of an answer, as it comes. Names and arguments are told as soon as they are there; what began like
 * a call and is none is text. One thread at a time. */
#ifndef HEARTH_SERVE_TOOL_READER_H
#define HEARTH_SERVE_TOOL_READER_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include "base/status.h"
#include "base/text.h"
#include "serve/answer.h"

/* n bytes, 1 or more, of a text, a name or arguments. */
typedef status tool_reader_fn(void *arg, enum piece_kind kind, const char *at, size_t n);

/* How far a JSON value has come. */
struct json_walk {
    size_t depth;
    bool string, escaped;
};

/* Zero, with the first six, is one that may begin. */
struct tool_reader {
    const struct tool_format *format;
    tool_reader_fn *tell;
    void *arg;
    bool special; /* control tokens that are no marks are text; else nothing */
    bool keep_spaces; /* white space is told as it comes, though a call may follow: a stop string may be of it */
    const json_t *tools; /* the request's, borrowed, whose schemas say which values are strings; NULL: nobody does */
    /* its own */
    enum {
        READ_START,     /* nothing but white space has come */
        READ_TEXT,
        READ_HEAD,      /* behind a mark that opens a call, or between two calls */
        READ_OBJECT,    /* in an object that has the name and the arguments */
        READ_ARGUMENTS,
        READ_TAGS,      /* in arguments that are no JSON */
        READ_TAIL       /* behind a call */
    } state;
    struct text held;        /* what is not told yet: of a call all of it, from its mark on, until its name is told */
    size_t mark, at;         /* bytes of held: the mark; what has been read */
    bool list;               /* calls are elements of an array */
    bool object, told;       /* the call is an object; its name was told */
    struct text name, arguments; /* of the object, if they came before they could be told */
    struct json_walk walk;   /* of the arguments */
    const json_t *parameters; /* between tags: the tool's */
    size_t n_members;
};

/* Takes text [n] in UTF-8, characters whole, or (control) one control token. ST_NOMEM; what tell returns. */
status tool_reader_take(struct tool_reader *r, const char *at, size_t n, bool control);
/* Nothing comes any more. */
status tool_reader_end(struct tool_reader *r);
void tool_reader_free(struct tool_reader *r);

#endif
