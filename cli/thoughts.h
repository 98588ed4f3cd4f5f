/* An answer as it comes, token by token, in two parts: what the model thinks (model/thoughts.h), and what it says. */
#ifndef HEARTH_CLI_THOUGHTS_H
#define HEARTH_CLI_THOUGHTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/status.h"
#include "cli/text.h"
#include "model/thoughts.h"
#include "model/tokenizer.h"

struct thoughts {
    bool dimmed; /* thoughts are written in a terminal's faint letters, their marks not at all; else all as it comes */
    struct text thought, answer; /* so far, without marks */
    bool ended;              /* a mark has ended the answer: nothing that comes is of it */
    /* its own */
    struct thoughts_reader reader;
    struct utf8_stream *out;
    bool faint, line_begins; /* what the terminal was told; the last thing written was a line's end */
};

/* Begins an answer to a prompt of n tokens, which may have opened a thought. Texts of an earlier answer are emptied. */
status thoughts_begin(struct thoughts *h, const struct tokenizer *t, const int32_t *prompt, size_t n);
/* Takes a token of the answer, and writes what is known to be one part or the other. ST_NOMEM. */
status thoughts_take(struct thoughts *h, const struct tokenizer *t, int32_t token, struct utf8_stream *out);
/* The answer is over: what is held is no mark. ST_NOMEM. */
status thoughts_end(struct thoughts *h, struct utf8_stream *out);
void thoughts_free(struct thoughts *h);

#endif
