/* What a step consists of, as it lies in messages. Writers and readers go on where they are; the message is as long as
 * its header says, which the caller has checked. Readers copy before they check; ST_FORMAT (logged). Private to
 * wire/. */
#ifndef HEARTH_WIRE_RECORDS_H
#define HEARTH_WIRE_RECORDS_H

#include "wire/parts.h"
#include "wire/runs.h"

enum { RUN_BYTES = 40, SPAN_BYTES = 20, CHANGE_BYTES = 16, BEGIN_BYTES = 8 + 40 + 12, BIAS_BYTES = 8, OP_BYTES = 12 };

/* Runs of n_tokens tokens together, of different sequences. */
void write_runs(struct writer *w, const struct wire_run *runs, uint32_t n);
status read_runs(int kind, struct reader *r, const struct wire_limits *lim, uint32_t n, uint32_t n_tokens,
                 struct wire_run *runs);
/* The same as owners know them: sequence, position, n_tokens, begin_with, keep_as. */
void write_spans(struct writer *w, const struct wire_run *runs, uint32_t n);
status read_spans(int kind, struct reader *r, const struct wire_limits *lim, uint32_t n, uint32_t n_tokens,
                  struct wire_run *runs);

void write_changes(struct writer *w, const struct wire_change *changes, uint32_t n);
status read_changes(int kind, struct reader *r, const struct wire_limits *lim, uint32_t n, const struct wire_copy *c);

/* Begins of n_runs runs; then their texts, biases and ops, as many together as the step says. */
void write_begins(struct writer *w, const struct wire_begin *begins, uint32_t n);
status read_begins(int kind, struct reader *r, const struct wire_limits *lim, const struct wire_step *s,
                   const struct wire_copy *c);

void write_sampling(struct writer *w, const struct wire_sampling *s);
status read_sampling(int kind, struct reader *r, struct wire_sampling *s);

void write_tokens(struct writer *w, const int32_t *tokens, uint32_t n);
/* `what`: "a token". */
status read_tokens(int kind, struct reader *r, const struct wire_limits *lim, const char *what, uint32_t n,
                   int32_t *tokens);

#endif
