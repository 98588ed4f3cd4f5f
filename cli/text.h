/* Text in and out: a prompt from the command line, a file or standard input; tokens as readable text. */
#ifndef HEARTH_CLI_TEXT_H
#define HEARTH_CLI_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include "base/status.h"
#include "base/text.h"
#include "model/tokenizer.h"

struct text_option {
    const char *prompt; /* the text itself, or NULL */
    const char *file;   /* where it is, "-" for standard input; NULL if prompt is set */
    bool no_escape;     /* a backslash in `prompt` is one (cli/escapes.h) */
    bool elsewhere;     /* the command was given something else to read: neither of them is allowed */
};

/* Reads the text: *text is malloc'ed (caller frees) and NUL-terminated, *n its bytes. Of a file, a byte order mark is
 * left out, and lines may end in CR LF, which becomes LF. `trim_newline` leaves out one final newline of a file, as
 * llama.cpp does. ST_IO names the file, ST_USAGE also an encoding that is not UTF-8. */
status text_read(const struct text_option *t, bool trim_newline, char **text, size_t *n);

/* How many bytes a text begins with that are none of it: those of a UTF-8 byte order mark. ST_USAGE (logged; `name`
 * says where it is from) if a mark says that it is UTF-16 or UTF-32. */
status text_mark(const char *bytes, size_t n, const char *name, size_t *skip);

/* Writes bytes so that every write ends on a whole UTF-8 character; bytes that cannot become one pass unchanged. */
struct utf8_stream {
    FILE *out;
    char held[4];
    size_t n_held;
};

void utf8_write(struct utf8_stream *s, const char *bytes, size_t n);
/* Writes what is held although the character is not complete. */
void utf8_end(struct utf8_stream *s);

/* The bytes of a token in `piece` (a longer one counts as empty: no vocabulary has any). */
enum { PIECE_MAX = 1024 };
size_t text_piece(const struct tokenizer *t, int32_t token, bool special, char piece[PIECE_MAX]);

#endif
