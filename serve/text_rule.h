/* Grammars of free text. */
#ifndef HEARTH_SERVE_TEXT_RULE_H
#define HEARTH_SERVE_TEXT_RULE_H

#include <stdbool.h>
#include <stddef.h>
#include "model/tokenizer.h"
#include "sampling/grammar.h"

/* A mark, as letters or as a control token of that name, and the op at which a text goes on behind it. */
struct text_mark {
    const char *text;
    uint32_t to;
};

/* Any text, control tokens and all, up to the first mark [n, 0 to TEXT_MARKS]. `first` (NULL: none) is one that counts
 * only where the text begins, white space apart. `ends`: the text may end (RETURN) wherever no mark is complete. */
enum { TEXT_MARKS = 8 };
void text_rule(struct grammar_maker *m, const struct text_mark *marks, size_t n, const struct text_mark *first,
               bool ends);

/* A jump to who knows where yet, around which the text goes on: grammar_patch fills it in. Others may jump to it
 * before. */
uint32_t text_label(struct grammar_maker *m);

/* All of another grammar, which begins here. */
void text_grammar(struct grammar_maker *m, const struct grammar *g);

/* A grammar of which every text may have thoughts before it, between marks for which the vocabulary has tokens (t NULL:
 * any): a model without them does not think. close: the mark that ends the thought which the prompt has opened
 * (thoughts_opened), which must come then; NULL: it has opened none. Replaces g->ops, which are malloc'ed; as they
 * were unless ST_OK. ST_FULL, ST_NOMEM (logged). */
status grammar_behind_thoughts(struct grammar *g, const struct tokenizer *t, const char *close);

#endif
