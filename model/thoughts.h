/* Reads what a model writes as two parts: what it thinks, between marks that it was trained to write
 * (<think>...</think> and others), and what it answers. Thoughts come first; a mark within the answer is a text like
 * any other. One thread at a time. */
#ifndef HEARTH_MODEL_THOUGHTS_H
#define HEARTH_MODEL_THOUGHTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/status.h"
#include "base/text.h"
#include "model/tokenizer.h"

/* What stands around thoughts or (answers) around the answer; close NULL: what stands before either and is none of
 * it. */
struct thoughts_mark {
    const char *open, *close;
    bool answers;
};

/* All marks that are known [*n]. */
const struct thoughts_mark *thoughts_marks(size_t *n);
/* The mark that ends the thought which a prompt [n] has opened at its end; NULL: it has opened none. */
const char *thoughts_opened(const struct tokenizer *t, const int32_t *prompt, size_t n);

enum thoughts_part { IS_THOUGHT, IS_ANSWER };

/* n bytes of a part, marks left out, as soon as they are known to be of it. `control`: one control token, whole. Of a
 * thought no white space is told at its ends, nor of an answer behind it at its beginning. What it returns, the reader
 * returns if it is not ST_OK. */
typedef status thoughts_fn(void *arg, enum thoughts_part part, const char *at, size_t n, bool control);

/* Before an answer; within a thought; within an answer that a mark ends; within one that none ends, or behind it. */
enum thoughts_state { THOUGHTS_BEFORE, THOUGHTS_WITHIN, THOUGHTS_ANSWER, THOUGHTS_OVER };

/* Zero, with `tell` and `arg`, is one that may begin. */
struct thoughts_reader {
    thoughts_fn *tell;
    void *arg;
    bool ended; /* a mark has ended the answer: nothing that comes is of it */
    /* its own */
    enum thoughts_state state;
    const char *close;        /* ends the thought, or the answer */
    bool thinks, thought, answered; /* there is a thought; some of it, of the answer, was told */
    bool gap;                 /* a thought has ended: a line ends before the next */
    struct text held, kinds;  /* what may become a mark; of each byte what it is of */
};

/* Begins an answer to a prompt of n tokens, which may have opened a thought, or the answer. */
void thoughts_reader_begin(struct thoughts_reader *r, const struct tokenizer *t, const int32_t *prompt, size_t n);
/* Takes the text [n] of a token, or a part of it. ST_NOMEM. */
status thoughts_reader_take(struct thoughts_reader *r, const char *at, size_t n, bool control);
/* Nothing comes any more: what is held is no mark, and is told. ST_NOMEM. */
status thoughts_reader_end(struct thoughts_reader *r);
void thoughts_reader_free(struct thoughts_reader *r);

/* Bytes of white space that a text begins with. */
size_t thoughts_spaces(const char *at, size_t n);

#endif
