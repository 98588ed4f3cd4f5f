/* From the tokens of an answer to what a client reads: characters that are whole, thoughts apart from text, calls of
 * tools apart from both, and nothing of or behind a stop string. One thread at a time. */
#ifndef HEARTH_SERVE_ANSWER_H
#define HEARTH_SERVE_ANSWER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/status.h"
#include "model/tokenizer.h"
#include "serve/tools.h"

enum piece_kind {
    PIECE_TEXT,
    PIECE_THOUGHT,
    PIECE_CALL,     /* a call begins: at [n] is the tool's name */
    PIECE_ARGUMENTS /* a part of its arguments, which together are a JSON object */
};

struct piece {
    enum piece_kind kind;
    const char *at; /* [n] UTF-8, no character in two pieces; bytes that are none are U+FFFD */
    size_t n;
    uint32_t call;  /* number of the call, from 0 */
    const char *id; /* of a CALL: a function of the answer's id and the number alone: "call_" and 24 letters, or where a
                     * family's template takes no other nine letters */
};
typedef void piece_fn(void *arg, const struct piece *p);

struct answer_options {
    const struct tokenizer *tokenizer;
    const char *const *stops;        /* [n_stops], none empty; copied. They are looked for in text, not in thoughts */
    size_t n_stops;
    const struct tool_format *tools; /* NULL: what looks like a call is text */
    const json_t *called;            /* the request's tools, kept as long as the answer; NULL: not known */
    bool thoughts;                   /* false: thoughts are text, marks and all */
    bool special;                    /* control tokens print */
    const int32_t *prompt;           /* [n_prompt] may have opened a thought; read by answer_create alone */
    size_t n_prompt;
    const char *id;                  /* of the answer; copied */
};

struct answer;

/* ST_NOMEM (logged). */
status answer_create(const struct answer_options *o, piece_fn *tell, void *arg, struct answer **out);
void answer_free(struct answer *a); /* NULL is fine */

/* Takes a token and tells what is now known. *over: a stop string, or a mark, has ended the answer. ST_NOMEM. */
status answer_take(struct answer *a, int32_t token, bool *over);
/* Nothing comes any more: tells what was held back. ST_NOMEM. */
status answer_finish(struct answer *a);
const char *answer_stop(const struct answer *a);  /* the stop string that came, or NULL */
uint32_t answer_calls(const struct answer *a);    /* calls that have begun */

#endif
